#!/usr/bin/env python3
"""Show a training config with its bases merged in, its modalities or its base models."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from espnet_smop.command import call_subcommand, run, str2bool
from espnet_smop.config import load_config, merge, modalities_of, named_models, parse_assignment

# Files of a base model; weights in other frameworks' formats are not fetched.
_PATTERNS = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt", "*.gguf")


def show(args: argparse.Namespace) -> None:
    r"""Print a config with its bases merged in and with values changed, as one complete file.

    Example::

        python -m espnet_smop.bin.config show conf/train_avsr_dci.yaml
        python -m espnet_smop.bin.config show conf/train_avsr_dci.yaml max_epoch=2 \
            optim_conf.lr=5.0e-4 > exp/train_avsr_dci_short.yaml
    """
    settings = load_config(args.config)
    for assignment in args.assignments:
        settings = merge(settings, parse_assignment(assignment))
    yaml.safe_dump(settings, sys.stdout, sort_keys=False, allow_unicode=True, width=10_000)


def modalities(args: argparse.Namespace) -> None:
    """Print the modalities of a config's model: ``audio``, ``video`` or ``audio video``.

    Example::

        python -m espnet_smop.bin.config modalities conf/train_asr_smop4.yaml --max_epoch 5
    """
    print(*modalities_of(args.config, args.arguments))


def base_models(args: argparse.Namespace) -> None:
    """Locate the base models that a config names, and fetch them from the hub if necessary.

    Prints a line ``PART MODEL DIRECTORY`` for each, and one for ``decoder.tokenizer`` where the
    config names a tokenizer. Run it on a machine with network access: offline nodes then find
    the models in the hub's cache.

    Example::

        python -m espnet_smop.bin.config base_models conf/train_avsr.yaml
    """
    settings = load_config(args.config)
    models = named_models(settings)
    tokenizer = (settings.get("decoder_conf") or {}).get("tokenizer")
    if tokenizer and not args.named:
        models["decoder.tokenizer"] = tokenizer
    for part, model in models.items():
        if args.named:
            print(part, model)
        else:
            from espnet_smop.base_model import locate  # imports torch, which takes seconds

            print(part, model, locate(model, patterns=_PATTERNS), flush=True)


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="Config, which may name a base")
    parser.add_argument("assignments", nargs="*", metavar="KEY=VALUE", help="Values to change")


def _modalities_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="Training config, or an experiment's config.yaml")
    parser.add_argument(
        "arguments", nargs=argparse.REMAINDER, help="Options of avsr_train that override the config"
    )


def _base_models_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="Training config")
    parser.add_argument(
        "--named",
        type=str2bool,
        default=False,
        help="Only print the names, without looking for the models",
    )


COMMANDS = [
    ("show", _show_arguments, show),
    ("modalities", _modalities_arguments, modalities),
    ("base_models", _base_models_arguments, base_models),
]


def main(cmd: Sequence[str] | None = None) -> int | None:
    """Run the subcommand that the command line names."""
    return call_subcommand(cmd, name="config", description=__doc__, commands=COMMANDS)


if __name__ == "__main__":
    run(main)
