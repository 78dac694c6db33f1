"""Write the data directory of the clips that format_av's jobs made, and a report.

``report.txt`` says how many utterances and hours there are, which are broken and why.

Example::

    python -m espnet_smop.bin.combine_av --data_dir data/test --out_dir dump/raw/test --num_jobs 2
"""

import argparse
import sys
from pathlib import Path

from espnet_smop.command import CommandHelp
from espnet_smop.corpus.combine import combine
from espnet_smop.corpus.datadir import DataDirError


def get_parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m espnet_smop.bin.combine_av",
        description=__doc__,
        formatter_class=CommandHelp,
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="format_av's --data_dir")
    parser.add_argument("--out_dir", type=Path, required=True, help="format_av's --out_dir")
    parser.add_argument(
        "--num_jobs",
        type=int,
        default=1,
        help="as for format_av; the records of whatever jobs ran are read",
    )
    parser.add_argument(
        "--allow_broken",
        action="store_true",
        help="go on with a test set whose broken clips are lost; otherwise they are an error",
    )
    return parser


def main(cmd: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = get_parser().parse_args(cmd)
    try:
        report = combine(args.data_dir, args.out_dir, allow_broken=args.allow_broken)
    except DataDirError as e:
        sys.exit(f"combine_av: {e}")
    lines = report.splitlines()
    print(f"{args.out_dir}: {lines[0]}")
    for line in lines[1:21]:
        print(f"  {line}")
    if len(lines) > 21:
        print(f"  … {len(lines) - 21} more lines in {args.out_dir}/report.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())
