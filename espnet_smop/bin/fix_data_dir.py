"""Check Kaldi data directories, or sort and unify their tables.

Sorts the tables, keeps the utterances that all of them have, writes ``spk2utt``, and prints what
is removed.

Example::

    python -m espnet_smop.bin.fix_data_dir --check data/train data/valid data/test
"""

import argparse
import sys
from pathlib import Path

from espnet_smop.command import CommandHelp
from espnet_smop.corpus import datadir


def get_parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m espnet_smop.bin.fix_data_dir",
        description=__doc__,
        formatter_class=CommandHelp,
    )
    parser.add_argument("dirs", nargs="+", type=Path, metavar="DIR", help="data directory")
    parser.add_argument(
        "--check",
        action="store_true",
        help="change nothing: print what is wrong and exit with status 1 if anything is",
    )
    return parser


def main(cmd: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = get_parser().parse_args(cmd)
    problems = 0
    for directory in args.dirs:
        try:
            found = datadir.check(directory) if args.check else []
            removed = {} if args.check else datadir.fix(directory)
        except datadir.DataDirError as e:
            sys.exit(f"fix_data_dir: {e}")
        if args.check:
            problems += len(found)
            for line in found:
                print(line, file=sys.stderr)
            continue
        for utterance, why in removed.items():
            print(f"{directory}: removed {utterance}: {why}", file=sys.stderr)
        left = len(datadir.read_table(directory / "text"))
        print(f"{directory}: {left} utterances, {len(removed)} removed")
    return int(problems > 0)


if __name__ == "__main__":
    sys.exit(main())
