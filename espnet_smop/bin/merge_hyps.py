#!/usr/bin/env python3
"""Merge the n-best directories of parallel decoding jobs into the decode directory.

``LOGDIR/output.N/1best_recog/{text,token,token_int,score}`` become sorted files in ``--out_dir``.
It is an error if they do not hold exactly the utterances of the test set.

Example::

    python -m espnet_smop.bin.merge_hyps --ref dump/raw/test/text --num_jobs 4 \
        --log_dir exp/avsr/decode/test/logdir --out_dir exp/avsr/decode/test
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.scoring.transcripts import (
    ScoringError,
    check_same_ids,
    read_text,
)

_FILES = ("token", "token_int", "score", "text")
"""``text`` comes last: where it is there, all is there."""


def merge(*, ref: Path, log_dir: Path, num_jobs: int, out_dir: Path) -> int:
    """Merge and return the number of utterances.

    Raises:
        ScoringError: a job's output is missing, or the utterances are not those of ``ref``.
    """
    references = read_text(ref)
    for name in _FILES:
        merged: dict[str, str] = {}
        for job in range(1, num_jobs + 1):
            part = read_text(log_dir / f"output.{job}" / "1best_recog" / name)
            twice = sorted(merged.keys() & part.keys())
            if twice:
                raise ScoringError(f"{log_dir}: '{twice[0]}' was decoded by two jobs")
            merged.update(part)
        check_same_ids(references, merged, reference_name=str(ref), other_name=f"{log_dir}: {name}")
        lines = [f"{utt} {merged[utt]}".rstrip() + "\n" for utt in sorted(merged)]
        with atomic_write(out_dir / name) as file:
            file.write("".join(lines))
    return len(references)


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ref", type=Path, required=True, help="text of the test set")
    parser.add_argument("--log_dir", type=Path, required=True, help="Where output.N are")
    parser.add_argument("--num_jobs", type=int, required=True, help="How many output.N there are")
    parser.add_argument("--out_dir", type=Path, required=True, help="The decode directory")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Merge what the command line names."""
    args = get_parser().parse_args(cmd)
    try:
        number = merge(**vars(args))
    except ScoringError as e:
        sys.exit(f"merge_hyps: {e}")
    print(f"{args.out_dir}: {number} hypotheses")


if __name__ == "__main__":
    main()
