"""Checks of the names and types of settings, before anything is built."""

import argparse
import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from espnet2.tasks.abs_task import optim_classes, scheduler_classes
from torch import nn

from espnet_smop.class_path import unknown_key
from espnet_smop.modality import MODALITIES
from espnet_smop.views import TASKS

_NUMBER = re.compile(r"(?P<digits>[-+]?(\d+\.?\d*|\.\d+))([eE](?P<sign>[-+]?)(?P<exponent>\d+))?")
_TEXTS = {"prompt", "model", "tokenizer", "gguf_file", "file"}
"""Settings that may be a string of digits."""


class SettingsError(ValueError):
    """Settings are wrong; the message has one line for each of them."""


def check_none(problems: Iterable[str]) -> None:
    """Raise `SettingsError` with all problems, if there are any."""
    if found := list(problems):
        raise SettingsError("\n".join(found))


def conf_problems(
    name: str, build: Callable, conf: Any, *, num_given: int = 0, registered: bool = True
) -> list[str]:
    """Return problems with a ``*_conf``: unknown keys, and numbers that are strings.

    Args:
        name: of the conf, for the messages.
        build: takes the conf as keywords.
        conf: the settings.
        num_given: number of leading positional parameters that do not come from the conf.
        registered: whether the class is one of this package: values must have the annotated types,
            and only paths and the prompt may be a string of digits.
    """
    if not isinstance(conf, Mapping):
        return [f"{name} is {conf!r}, expected settings of the form 'key: value'"]
    parameters = list(inspect.signature(build).parameters.values())[num_given:]
    named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    known = [p.name for p in named]
    takes_any = len(named) < len(parameters)
    unknown = [] if takes_any else [key for key in conf if key not in known]
    problems = [unknown_key(name, key, known) for key in unknown]
    problems += [
        f"{name} lacks a key: '{p.name}'"
        for p in named
        if p.default is p.empty
        and p.name not in conf
        and not any(problem.endswith(f"Did you mean '{p.name}'?") for problem in problems)
    ]
    if registered:
        problems += text_numbers(name, conf)
        problems += [
            f"{name}.{p.name} is {conf[p.name]!r}, expected {expected}"
            for p in named
            if p.name in conf and (expected := _other_type(p.annotation, conf[p.name])) is not None
        ]
    return problems


def _other_type(wanted: Any, value: Any) -> str | None:
    """Return the expected type if an option has a simple type and the value another."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return None  # reported by `text_numbers`
    if wanted is bool and not isinstance(value, bool):
        return "true or false"
    if wanted is int and (not isinstance(value, int) or isinstance(value, bool)):
        return "a whole number"
    if wanted is float and (not isinstance(value, int | float) or isinstance(value, bool)):
        return "a number"
    if wanted is str and not isinstance(value, str):
        return "a string"
    return None


def text_numbers(name: str, value: Any) -> Iterator[str]:
    """Yield a message for each number that YAML reads as a string, such as ``1e-3``."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in _TEXTS:
                yield from text_numbers(f"{name}.{key}", item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from text_numbers(name, item)
    elif isinstance(value, str) and (found := _NUMBER.fullmatch(value.strip())):
        if found["exponent"] is None:
            yield f"{name} is the string '{value}', expected a number: write it without quotes"
            return
        digits = found["digits"] + ("" if "." in found["digits"] else ".0")
        number = f"{digits}e{found['sign'] or '+'}{found['exponent']}"
        yield f"{name} is the string '{value}' to YAML, expected a number: write {number}"


def optimizer_problems(args: argparse.Namespace) -> Iterator[str]:
    """Yield problems with optimizer and schedule, by trying them on a single parameter.

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
    found += [
        f"scheduler_conf.{key} is {value}, expected at least 0"
        for key, value in (args.scheduler_conf.items() if not found else ())
        if key.endswith("_steps") and isinstance(value, int) and value < 0
    ]
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


_AT_LEAST = {
    "accum_grad": 1, "batch_bins": 1, "batch_size": 1, "log_interval": 1, "max_epoch": 1,
    "ngpu": 0, "nonfinite_patience": 0, "num_att_plot": 0, "num_iters_per_epoch": 1,
    "num_workers": 0, "patience": 0, "projector_lr_scale": 0,
}  # fmt: skip
_STATS = {
    "loss", "acc", "loss_ce", "loss_ctc", "loss_balance", "loss_z", "loss_mome_balance",
    "loss_sink",
}  # fmt: skip
"""Statistics of the registered projectors and decoders, except the routers'."""
_OF_A_VIEW = re.compile(rf"({'|'.join(_STATS)})_({'|'.join(TASKS)})(_a\d+)?(_v\d+)?")


def number_problems(args: argparse.Namespace) -> Iterator[str]:
    """Yield a message for each training number that is too small."""
    for name, least in _AT_LEAST.items():
        value = getattr(args, name)
        if value is not None and value < least:
            yield f"{name} is {value}, expected at least {least}"
    if args.grad_clip <= 0:
        yield f"grad_clip is {args.grad_clip}, expected a number above 0"  # it reverses them
    if not 0 <= args.seed < 2**32:
        yield f"seed is {args.seed}, expected 0 to {2**32 - 1}"
    kept = args.keep_nbest_models
    for number in kept if isinstance(kept, list | tuple) else [kept]:
        if number < 0:
            yield f"keep_nbest_models is {number}, expected at least 0"


_MAY_BE_INFINITE = ("grad_clip", "grad_clip_type")


def finite_problems(args: argparse.Namespace) -> Iterator[str]:
    """Yield a message for each number of the settings that is NaN or infinite."""
    for name, value in vars(args).items():
        if name not in _MAY_BE_INFINITE or value != math.inf:
            yield from _not_finite(name, value)


def _not_finite(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _not_finite(f"{name}.{key}", item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _not_finite(name, item)
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{name} is {value}, expected a finite number"


def criterion_problems(args: argparse.Namespace) -> Iterator[str]:
    """Yield problems with the criteria by which epochs are compared."""
    criteria = {
        "early_stopping_criterion": [args.early_stopping_criterion],
        "best_model_criterion": args.best_model_criterion,
    }
    any_name = ":" in f"{args.decoder}{args.projector}"
    for option, values in criteria.items():
        for value in values:
            if not isinstance(value, list | tuple) or len(value) != 3:
                yield f"{option} has {value!r}, expected [train or valid, NAME, min or max]"
                continue
            part, name, mode = value
            if part not in ("train", "valid"):
                yield f"{option} has '{part}', expected train or valid"
            if mode not in ("min", "max"):
                yield f"{option} has '{mode}', expected min or max"
            if name in _STATS or any_name or _OF_A_VIEW.fullmatch(str(name)):
                continue
            if not str(name).startswith("router_"):
                yield unknown_key(option, name, _STATS, kind="statistic")


def data_problems(args: argparse.Namespace) -> Iterator[str]:
    """Yield problems with the data that the arguments name, if any."""
    modalities = [m for m in MODALITIES.values() if getattr(args, f"{m.name}_frontend") is not None]
    feats = {m.feats_name for m in MODALITIES.values()}
    known = {"text", *(m.data_name for m in MODALITIES.values()), *feats}
    for kind in ("train", "valid"):
        sources = getattr(args, f"{kind}_data_path_and_name_and_type")
        for path, name, _ in sources:
            if name not in known and not args.allow_variable_data_keys:
                yield f"data name '{name}' of {path} is none of {', '.join(sorted(known))}"
            if not Path(path).is_file():
                yield f"{path} does not exist"
        names = {name for _, name, _ in sources}
        if not names:
            continue
        if "text" not in names:
            yield f"the {kind} data has no text: add FILE,text,text"
        for modality in modalities:
            if not names & {modality.data_name, modality.feats_name}:
                yield (
                    f"the model has a {modality.name}_frontend, but the {kind} data has no "
                    f"'{modality.data_name}': add {','.join(modality.source('DIR'))}, or set "
                    f"{modality.name}_frontend: null"
                )
        conf = args.preprocessor_conf
        if isinstance(conf, Mapping) and conf.get("feats_mask") and not names & feats:
            yield (
                f"preprocessor_conf.feats_mask is for precomputed features, but the {kind} data "
                "has none: give --feats_cache DIR to run.sh, or set feats_mask: null"
            )
        for file in getattr(args, f"{kind}_shape_file"):
            if not Path(file).is_file():
                yield f"--{kind}_shape_file {file} does not exist"


def gpu_problems(ngpu: int, work: str = "train") -> list[str]:
    """Return a message if fewer GPUs are visible than ``--ngpu`` asks for.

    Args:
        ngpu: of the command line.
        work: what the command does with them, a verb.
    """
    gpus = torch.cuda.device_count() if ngpu else 0
    if ngpu <= gpus:
        return []
    return [
        f"--ngpu {ngpu}, but only {gpus} GPUs are visible. Check nvidia-smi, CUDA_VISIBLE_DEVICES "
        f"and the job's partition, or {work} on the CPU with --ngpu 0"
    ]


def init_param_problems(args: argparse.Namespace) -> list[str]:
    """Return a message for each ``--init_param`` whose file does not exist."""
    files = [text.partition(":")[0] for text in args.init_param]
    return [
        f"--init_param {file}: there is no such file" for file in files if not Path(file).is_file()
    ]
