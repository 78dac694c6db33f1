#!/usr/bin/env python3
"""Make the mini corpus: a talking face with synthetic speech, in LRS3's file format."""

import argparse
import sys
from pathlib import Path

from talking_face.corpus import Settings, make, size_of
from talking_face.difficulty import ORDINARY_ROOMS, QUIET_ROOMS


def get_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="directory to make or complete")
    parser.add_argument(
        "--size",
        default="default",
        help="default (900 training and 600 test utterances), smoke (32 and 12), a number of"
        " training and validation utterances, or pretraining (10,000 for base models)",
    )
    parser.add_argument(
        "--form",
        choices=("raw", "auto_avsr", "avhubert", "lrs2"),
        default="raw",
        help="LRS3 as distributed, or as prepared by auto_avsr or AV-HuBERT; or LRS2"
        " as distributed",
    )
    parser.add_argument("--seed", type=int, default=0, help="of sentences, speakers and noise")
    parser.add_argument("--nj", type=int, default=2, help="processes; the corpus is the same")
    return parser


def main() -> None:
    """Run the command."""
    args = get_parser().parse_args()
    try:
        size = size_of(args.size)
        difficulty = QUIET_ROOMS if size.pretrain else ORDINARY_ROOMS
        settings = Settings(size=size, seed=args.seed, difficulty=difficulty, form=args.form)
        make(args.out, settings, jobs=args.nj)
    except (FileExistsError, ValueError) as error:
        sys.exit(f"make_corpus: {error}")


if __name__ == "__main__":
    main()
