#!/usr/bin/env python3
"""Pack a trained model for others, and upload it to the Hugging Face hub."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from espnet_smop.checkpoint.hub import upload as upload_package
from espnet_smop.checkpoint.package import contents
from espnet_smop.checkpoint.package import pack as pack_experiment
from espnet_smop.command import call_subcommand, run, str2bool
from espnet_smop.config import load_config


def pack(args: argparse.Namespace) -> None:
    r"""Pack a trained model: config, trained weights, tokenizer, prompts, results, model card.

    Base models are referred to by hub id (or directory) and fingerprint; ``--include_bases`` adds
    their files. `AVSRSpeech2Text.from_pretrained` and the command ``transcribe`` load the package.

    Example::

        python -m espnet_smop.bin.package pack --exp_dir exp/avsr_train_avsr_smop3_dedr \
            --avsr_model_file valid.acc.ave.pth --out exp/avsr_train_avsr_smop3_dedr/packed.zip
    """
    inference = load_config(args.inference_config) if args.inference_config else {}
    out = pack_experiment(
        args.exp,
        args.avsr_model_file,
        args.out,
        include_bases=args.include_bases,
        inference=inference,
        name=args.name,
        license=args.license,
        dtype=args.dtype and getattr(torch, args.dtype),
    )
    for name, size in contents(out).items():
        print(f"{size:>14,}  {name}")
    print(f"packed: {out}")


def upload(args: argparse.Namespace) -> None:
    r"""Upload a package to the Hugging Face hub.

    The token is taken from ``HF_TOKEN`` or from ``hf auth login``, and needs write access.

    Example::

        python -m espnet_smop.bin.package upload \
            --packed exp/avsr_train_avsr_smop3_dedr/packed.zip \
            --repo me/avsr_smop3_dedr --dry_run true
    """
    upload_package(args.packed, args.repo, private=args.private, dry_run=args.dry_run)


def _pack_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--exp_dir", "--exp", dest="exp", required=True, help="Experiment directory"
    )
    parser.add_argument("--avsr_model_file", default="valid.acc.ave.pth", help="Checkpoint in it")
    parser.add_argument("--out", required=True, help="A .zip file, or a directory")
    parser.add_argument(
        "--include_bases",
        type=str2bool,
        default=False,
        help="Add the base models; mind their size and licences (default: false)",
    )
    parser.add_argument(
        "--inference_config",
        type=Path,
        help="Decoding config; its settings are recommended where the experiment's inference_conf "
        "has none",
    )
    parser.add_argument("--name", help="Title of the model card (default: the experiment's name)")
    parser.add_argument("--license", help="Licence for the model card, e.g. apache-2.0")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="Weight dtype; float16 halves the package (default: the checkpoint's)",
    )


def _upload_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--packed", required=True, help="Package, a zip file or directory")
    parser.add_argument("--repo", required=True, help="Hub id OWNER/NAME; created if missing")
    parser.add_argument(
        "--private", type=str2bool, default=False, help="Make a new repository private"
    )
    parser.add_argument(
        "--dry_run",
        type=str2bool,
        nargs="?",
        const=True,
        default=False,
        help="Only list the files to upload; needs neither token nor network",
    )


COMMANDS = [("pack", _pack_arguments, pack), ("upload", _upload_arguments, upload)]


def main(cmd: Sequence[str] | None = None) -> int | None:
    """Run the subcommand that the command line names."""
    return call_subcommand(cmd, name="package", description=__doc__, commands=COMMANDS)


if __name__ == "__main__":
    run(main)
