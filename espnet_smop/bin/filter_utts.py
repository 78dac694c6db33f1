"""Drop too long, too short and empty utterances from a training or validation set.

``dropped.txt`` lists them with the reason. Not for test sets.

Example::

    python -m espnet_smop.bin.filter_utts --in_dir dump/raw/org/valid --out_dir dump/raw/valid \
        --max_seconds 24
"""

import argparse
import sys
from pathlib import Path

from espnet_smop.command import CommandHelp
from espnet_smop.corpus.datadir import DataDirError
from espnet_smop.corpus.filter import Limits, filter_utterances


def get_parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    limits = Limits()
    parser = argparse.ArgumentParser(
        prog="python -m espnet_smop.bin.filter_utts",
        description=__doc__,
        formatter_class=CommandHelp,
    )
    parser.add_argument("--in_dir", type=Path, required=True, help="data directory of stage 3")
    parser.add_argument("--out_dir", type=Path, required=True, help="the filtered one")
    parser.add_argument(
        "--min_seconds", type=float, default=limits.min_seconds, help="shortest utterance kept"
    )
    parser.add_argument(
        "--max_seconds", type=float, default=limits.max_seconds, help="longest utterance kept"
    )
    parser.add_argument(
        "--min_chars", type=int, default=limits.min_chars, help="shortest transcript kept"
    )
    parser.add_argument(
        "--max_chars", type=int, default=limits.max_chars, help="longest transcript kept"
    )
    return parser


def main(cmd: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = get_parser().parse_args(cmd)
    limits = Limits(args.min_seconds, args.max_seconds, args.min_chars, args.max_chars)
    try:
        print(filter_utterances(args.in_dir, args.out_dir, limits))
    except DataDirError as e:
        sys.exit(f"filter_utts: {e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
