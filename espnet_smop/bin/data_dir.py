"""Check, format and measure Kaldi data directories, for the data stages of recipes."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet2.utils.nested_dict_action import NestedDictAction

from espnet_smop.command import add_output_dir, call_subcommand, run, str2bool
from espnet_smop.corpus import datadir
from espnet_smop.corpus.babble import write_babble
from espnet_smop.corpus.combine import combine
from espnet_smop.corpus.filter import Limits, filter_utterances
from espnet_smop.corpus.format_job import run_job
from espnet_smop.corpus.landmarks import PROVIDERS, build_landmarks
from espnet_smop.corpus.shapes import make_shapes
from espnet_smop.fileio.table import read_table


def _add_fix_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dirs", nargs="+", type=Path, metavar="DIR", help="data directory")
    parser.add_argument(
        "--check",
        type=str2bool,
        default=False,
        help="change nothing: print the problems and exit with status 1 if there are any",
    )


def fix(args: argparse.Namespace) -> int:
    """Check data directories, or repair them.

    Sorts the tables, keeps the utterances that all of them have, writes ``spk2utt``, and prints
    what it removes.

    Example::

        python -m espnet_smop.bin.data_dir fix --check data/train data/valid data/test
    """
    problems = 0
    for directory in args.dirs:
        if args.check:
            found = datadir.check(directory)
            problems += len(found)
            for line in found:
                print(line, file=sys.stderr)
            continue
        removed = datadir.fix(directory)
        for utterance, why in removed.items():
            print(f"{directory}: removed {utterance}: {why}", file=sys.stderr)
        left = len(read_table(directory / "text"))
        print(f"{directory}: {left} utterances, {len(removed)} removed")
    return int(problems > 0)


def _add_format_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data_dir", type=Path, required=True, help="data directory of stage 1")
    add_output_dir(parser, "directory for the clips")
    parser.add_argument("--num_jobs", type=int, default=1, help="number of parallel jobs")
    parser.add_argument("--job", type=int, default=1, help="number of this job, from 1")
    parser.add_argument(
        "--landmarks",
        default="auto",
        help=f"how faces are found: {', '.join(PROVIDERS)}, or your own module:Class. auto uses "
        "the landmark files of landmarks.scp, and dlib for clips without one",
    )
    parser.add_argument(
        "--landmarks_conf",
        action=NestedDictAction,
        default={},
        help="the provider's options, such as every=5 (dlib: detect on each 5th picture)",
    )
    parser.add_argument(
        "--strict_test",
        type=str2bool,
        default=False,
        help="treat this as a test set, which must not lose an utterance: a clip without a face "
        "gets a centre crop, streams of unequal length are kept, both are reported, and `combine` "
        "refuses broken clips",
    )


def format_clips(args: argparse.Namespace) -> None:
    r"""Cut a data directory's utterances: FLAC at 16 kHz and 96×96 mouth crops at 25 fps.

    This is one of ``--num_jobs`` jobs. Clips that are done are skipped; broken ones are recorded
    with their cause for ``combine``.

    Example::

        python -m espnet_smop.bin.data_dir format --data_dir data/test --output_dir dump/raw/test \
            --num_jobs 2 --job 1
    """
    if not 1 <= args.job <= args.num_jobs:
        raise ValueError(f"--job {args.job} is not among 1 to {args.num_jobs}")
    run_job(
        args.data_dir,
        args.out,
        landmarks=lambda paths: build_landmarks(args.landmarks, paths=paths, **args.landmarks_conf),
        settings=json.dumps([args.landmarks, args.landmarks_conf], sort_keys=True),
        num_jobs=args.num_jobs,
        job=args.job,
        keep_all=args.strict_test,
    )


def _add_combine_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data_dir", type=Path, required=True, help="format's --data_dir")
    add_output_dir(parser, "format's --output_dir")
    parser.add_argument(
        "--allow_broken",
        type=str2bool,
        default=False,
        help="skip broken clips of a test set; otherwise they are an error",
    )


def combine_jobs(args: argparse.Namespace) -> None:
    """Combine the clips of the format jobs into a data directory, with a report.

    ``report.txt`` lists utterances and hours, broken clips with the reason, and clips that were
    kept by a fallback.

    Example::

        python -m espnet_smop.bin.data_dir combine --data_dir data/test --output_dir dump/raw/test
    """
    lines = combine(args.data_dir, args.out, allow_broken=args.allow_broken).splitlines()
    print(f"{args.out}: {lines[0]}")
    for line in lines[1:21]:
        print(f"  {line}")
    if len(lines) > 21:
        print(f"  … {len(lines) - 21} more lines in {args.out}/report.txt")


def _add_filter_arguments(parser: argparse.ArgumentParser) -> None:
    limits = Limits()
    parser.add_argument("--in_dir", type=Path, required=True, help="data directory of stage 3")
    add_output_dir(parser, "filtered data directory")
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


def filter_set(args: argparse.Namespace) -> None:
    r"""Drop too long, too short and empty utterances from a training or validation set.

    ``dropped.txt`` lists them with the reason. Not for test sets.

    Example::

        python -m espnet_smop.bin.data_dir filter --in_dir dump/raw/org/valid \
            --output_dir dump/raw/valid --max_seconds 24
    """
    limits = Limits(args.min_seconds, args.max_seconds, args.min_chars, args.max_chars)
    print(filter_utterances(args.in_dir, args.out, limits))


def _add_shapes_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data_dir", type=Path, required=True, help="directory below dump/raw")
    add_output_dir(parser, "directory for the shape files")


def shapes(args: argparse.Namespace) -> None:
    r"""Write the shape files from which ESPnet makes batches.

    The lengths are known from the data preparation, so no media is read. Files: ``speech_shape``
    (samples), ``video_shape`` (frames) and ``duration_shape``, the longer modality's duration in
    video frames (25 per second), which ``batch_type: tokens`` and ``numel`` use.

    Example::

        python -m espnet_smop.bin.data_dir shapes --data_dir dump/raw/train \
            --output_dir exp/avsr_stats/train
    """
    make_shapes(args.data_dir, args.out)


def _add_babble_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data_dir", type=Path, required=True, help="formatted training set")
    parser.add_argument("--out", type=Path, required=True, help="the WAV file to write")
    parser.add_argument(
        "--num_utts", type=int, default=30, help="number of utterances mixed together"
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="length of the noise")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same noise")


def babble(args: argparse.Namespace) -> None:
    r"""Mix babble noise, a 16 kHz mono WAV file, from a training set's utterances.

    Example::

        python -m espnet_smop.bin.data_dir babble --data_dir dump/raw/train \
            --out dump/noise/babble.wav
    """
    write_babble(
        args.data_dir, args.out, num_utts=args.num_utts, seconds=args.seconds, seed=args.seed
    )
    print(f"{args.out}: {args.seconds:g} s of {args.num_utts} utterances at a time")


COMMANDS = [
    ("fix", _add_fix_arguments, fix),
    ("format", _add_format_arguments, format_clips),
    ("combine", _add_combine_arguments, combine_jobs),
    ("filter", _add_filter_arguments, filter_set),
    ("shapes", _add_shapes_arguments, shapes),
    ("babble", _add_babble_arguments, babble),
]


def main(cmd: Sequence[str] | None = None) -> int | None:
    """Run the subcommand that the command line names."""
    return call_subcommand(cmd, name="data_dir", description=__doc__, commands=COMMANDS)


if __name__ == "__main__":
    run(main)
