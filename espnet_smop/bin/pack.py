#!/usr/bin/env python3
"""Pack a trained model for others: config, trained weights, tokenizer, prompts, results, card.

Base models are referred to by hub id (or directory) and fingerprint; ``--include_bases`` puts them
in. The package is what `AVSRSpeech2Text.from_pretrained` and ``transcribe`` take.

Example::

    python -m espnet_smop.bin.pack --exp exp/avsr_train_avsr_smop3_dedr \
        --avsr_model_file valid.acc.ave.pth --out exp/avsr_train_avsr_smop3_dedr/packed.zip
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet2.utils.types import str2bool

from espnet_smop.base_model import BaseModelError
from espnet_smop.checkpoint.package import PackageError, contents, pack
from espnet_smop.config import load_config


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = argparse.ArgumentParser(
        prog="python -m espnet_smop.bin.pack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--exp", required=True, help="Experiment, with config.yaml")
    parser.add_argument("--avsr_model_file", default="valid.acc.ave.pth", help="Checkpoint in it")
    parser.add_argument("--out", required=True, help="A .zip file, or a directory")
    parser.add_argument(
        "--include_bases",
        type=str2bool,
        default=False,
        help="Put the base models in: mind their size and licences (default false)",
    )
    parser.add_argument(
        "--inference_config",
        type=Path,
        help="Decoding config to recommend where the experiment's inference_conf says nothing",
    )
    parser.add_argument("--name", help="Title of the model card (default: the experiment's name)")
    parser.add_argument("--license", help="For the model card, e.g. apache-2.0")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Pack what the command line names."""
    args = get_parser().parse_args(cmd)
    try:
        inference = load_config(args.inference_config) if args.inference_config else {}
        out = pack(
            args.exp,
            args.avsr_model_file,
            args.out,
            bases=args.include_bases,
            inference=inference,
            name=args.name,
            license=args.license,
        )
        for name, size in contents(out).items():
            print(f"{size:>14,}  {name}")
    except (PackageError, BaseModelError, OSError, ValueError, RuntimeError) as e:
        sys.exit(f"pack: {e}")
    print(f"packed: {out}")


if __name__ == "__main__":
    main()
