"""Cut a data directory's utterances: FLAC at 16 kHz and 96×96 mouth crops at 25 fps.

One of several jobs. Clips that are done are skipped; broken ones are recorded with their cause for
combine_av.

Example::

    python -m espnet_smop.bin.format_av --data_dir data/test --out_dir dump/raw/test \
        --num_jobs 2 --job 1
"""

import argparse
import json
import sys
from pathlib import Path

from espnet2.utils.nested_dict_action import NestedDictAction

from espnet_smop.command import CommandHelp
from espnet_smop.corpus.datadir import DataDirError
from espnet_smop.corpus.format_job import run_job
from espnet_smop.corpus.landmarks import PROVIDERS, LandmarkError, build_landmarks


def get_parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m espnet_smop.bin.format_av", description=__doc__, formatter_class=CommandHelp
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="data directory of stage 1")
    parser.add_argument("--out_dir", type=Path, required=True, help="where the clips go")
    parser.add_argument("--num_jobs", type=int, default=1, help="how many jobs share the work")
    parser.add_argument("--job", type=int, default=1, help="which of them this one is, from 1")
    parser.add_argument(
        "--landmarks",
        default="auto",
        help=f"where faces are found: {', '.join(PROVIDERS)}, or module:Class of your own. auto "
        "takes the landmark files of landmarks.scp and dlib for clips without one",
    )
    parser.add_argument(
        "--landmarks_conf",
        action=NestedDictAction,
        default={},
        help="the provider's options, such as every=5 (dlib: detect on each 5th picture)",
    )
    parser.add_argument(
        "--strict_test",
        action="store_true",
        help="this is a test set, which must not lose an utterance: without a face the crop is "
        "the picture's centre, streams of unequal length are kept, both are reported, and "
        "combine_av refuses to go on with broken clips",
    )
    return parser


def main(cmd: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = get_parser()
    args = parser.parse_args(cmd)
    if not 1 <= args.job <= args.num_jobs:
        parser.error(f"--job {args.job} is not among 1 to {args.num_jobs}")
    try:
        run_job(
            args.data_dir,
            args.out_dir,
            landmarks=lambda paths: build_landmarks(
                args.landmarks, paths=paths, **args.landmarks_conf
            ),
            settings=json.dumps([args.landmarks, args.landmarks_conf], sort_keys=True),
            num_jobs=args.num_jobs,
            job=args.job,
            keep_all=args.strict_test,
        )
    except (DataDirError, LandmarkError) as e:
        sys.exit(f"format_av: {e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
