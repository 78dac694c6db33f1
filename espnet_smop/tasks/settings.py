"""Checks of settings by their names and forms, before anything is built."""

import argparse
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from espnet2.tasks.abs_task import optim_classes, scheduler_classes
from torch import nn

from espnet_smop.class_path import suggestion

_NUMBER = re.compile(r"(?P<digits>[-+]?(\d+\.?\d*|\.\d+))([eE](?P<sign>[-+]?)(?P<exponent>\d+))?")
_TEXTS = {"prompt", "model", "tokenizer", "gguf_file", "file"}
"""Settings that may be a text of digits."""


class SettingsError(ValueError):
    """Settings are wrong; the message has one line for each of them."""


def check_none(problems: Collection[str]) -> None:
    """Raise `SettingsError` with all problems, if there are any."""
    if problems:
        raise SettingsError("\n".join(problems))


def conf_problems(
    name: str, build: Callable, conf: Any, *, num_given: int = 0, registered: bool = True
) -> list[str]:
    """Return what is wrong with the keys of a ``*_conf``, and numbers in it that are texts.

    Args:
        name: of the conf, for the messages.
        build: what takes the conf as keywords.
        conf: the settings.
        num_given: number of leading positional parameters that do not come from the conf.
        registered: whether the class is one of this package, none of whose options takes a text of
            digits (but for paths and the prompt).
    """
    if not isinstance(conf, Mapping):
        return [f"{name} is {conf!r}, expected settings of the form 'key: value'"]
    parameters = list(inspect.signature(build).parameters.values())[num_given:]
    named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    known = [p.name for p in named]
    problems = []
    if len(named) == len(parameters):
        problems += [
            f"{name} has an unknown key '{key}'{_did_you_mean(key, known)}"
            for key in conf
            if key not in known
        ]
    problems += [
        f"{name} lacks a key: '{p.name}'"
        for p in named
        if p.default is p.empty and p.name not in conf
    ]
    return [*problems, *(text_numbers(name, conf) if registered else ())]


def text_numbers(name: str, value: Any) -> Iterator[str]:
    """Yield a message for each number that YAML takes for a text, such as ``1e-3``."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in _TEXTS:
                yield from text_numbers(f"{name}.{key}", item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from text_numbers(name, item)
    elif isinstance(value, str) and (found := _NUMBER.fullmatch(value.strip())):
        if found["exponent"] is None:
            yield f"{name} is the text '{value}', expected a number: write it without quotes"
            return
        digits = found["digits"] + ("" if "." in found["digits"] else ".0")
        number = f"{digits}e{found['sign'] or '+'}{found['exponent']}"
        yield f"{name} is the text '{value}' to YAML, expected a number: write {number}"


def optimizer_problems(args: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong with optimizer and schedule, trying them on a single parameter.

    Args:
        args: of the training.
    """
    optim_class = optim_classes[args.optim]
    found = conf_problems("optim_conf", optim_class, args.optim_conf, num_given=1)
    if found:
        yield from found
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    else:
        try:
            optimizer = optim_class([nn.Parameter(torch.zeros(1))], **args.optim_conf)
        except (TypeError, ValueError, AssertionError, RuntimeError) as e:
            yield f"optim_conf does not suit {args.optim}: {_reason(e, args.optim_conf)}"
            optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    if args.scheduler is None:
        return
    scheduler_class = scheduler_classes[args.scheduler]
    found = conf_problems("scheduler_conf", scheduler_class, args.scheduler_conf, num_given=1)
    yield from found
    if not found:
        try:
            scheduler_class(optimizer, **args.scheduler_conf)
        except (TypeError, ValueError, AssertionError, ZeroDivisionError) as e:
            reason = _reason(e, args.scheduler_conf)
            yield f"scheduler_conf does not suit {args.scheduler}: {reason}"


def _reason(error: Exception, conf: Mapping[str, Any]) -> str:
    text = " ".join(str(error).split())
    return text or f"check {', '.join(f'{key} {value}' for key, value in conf.items())}"


def init_param_problems(args: argparse.Namespace) -> list[str]:
    """Return a message for each ``--init_param`` whose file does not exist."""
    files = [text.partition(":")[0] for text in args.init_param]
    return [
        f"--init_param {file}: there is no such file" for file in files if not Path(file).is_file()
    ]


def _did_you_mean(key: Any, known: Collection[str]) -> str:
    return suggestion(str(key), known) or f". Known: {', '.join(sorted(known))}"
