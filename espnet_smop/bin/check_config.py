#!/usr/bin/env python3
r"""Check the stages of a recipe before starting: config, data, base models, decoding settings.

For stage 11 it takes the arguments of ``avsr_train`` and checks every part of the model (built
without weights), optimizer and schedule, data, base models, GPUs, free disk space, and the
experiment's directory; for stage 12 the decoding config and the test sets; for stage 3 the face
detector and free disk space. Prints one line per problem and exits with status 1, or one line if
there are none. Writes nothing.

Example::

    python -m espnet_smop.bin.check_config --config conf/train_avsr.yaml \
        --output_dir exp/avsr_mine --inference_config conf/decode.yaml --stages 11-13 \
        --projector_conf routing=jejr
    python -m espnet_smop.bin.check_config --exp_dir exp/avsr_mine --stages 12 \
        --inference_config conf/decode.yaml --data_dirs dump/raw/test
    python -m espnet_smop.bin.check_config --stages 1-3 --data_dirs data/train --dump_dir dump
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.command import CommandParser, run
from espnet_smop.experiments.check_data import preparation_problems

FORMAT = 3
"""The stage that makes features."""


def stages_of(text: str) -> list[int]:
    """Return the stages of a list such as ``1 3-7 11``, separated by blanks or commas.

    Raises:
        argparse.ArgumentTypeError: not such a list.
    """
    stages: list[int] = []
    for word in text.replace(",", " ").split():
        first, _, last = word.partition("-")
        try:
            stages += range(int(first), int(last or first) + 1)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"'{word}' is neither a stage nor a range such as 3-12"
            ) from None
    return stages


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command's options, besides those of ``avsr_train``."""
    parser = CommandParser(
        takes_others=True,
        prog="python -m espnet_smop.bin.check_config",
        description=__doc__,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--stages",
        type=stages_of,
        default="11 12",
        help="Recipe stages that will run. Files that an earlier one creates may still be missing",
    )
    parser.add_argument(
        "--data_dirs",
        nargs="*",
        type=Path,
        default=[],
        metavar="DIR",
        help="Data directories: with stage 3, its input; otherwise the formatted ones",
    )
    parser.add_argument(
        "--exp_dir", type=Path, help="Trained experiment to decode, if no stage trains it"
    )
    parser.add_argument("--dump_dir", type=Path, help="Where stage 3 writes the features")
    parser.add_argument("--landmarks", default="auto", help="Source of facial landmarks in stage 3")
    parser.add_argument("--inference_config", type=Path, help="Decoding config")
    parser.add_argument(
        "--inference_args", default="", help="More arguments for avsr_inference, in quotes"
    )
    return parser


def main(cmd: Sequence[str] | None = None) -> int:
    """Print the problems; return 1 if there are any."""
    args, training = get_parser().parse_known_args(cmd)
    problems, unchecked = [], ""
    if FORMAT in args.stages:
        problems += preparation_problems(args.data_dirs, args.landmarks, args.dump_dir)
    decoding = {
        "inference_config": args.inference_config,
        "inference_args": args.inference_args,
        "data_dirs": args.data_dirs,
    }
    if args.exp_dir is not None or training:
        # Late: --help and the data checks need not wait for torch.
        from espnet_smop.experiments.check import decoding_problems_of, training_problems
        from espnet_smop.tasks.avsr import AVSRTask
    if args.exp_dir is not None:
        problems += decoding_problems_of(args.exp_dir, **decoding)
    elif training:
        try:
            train_args = AVSRTask.get_parser().parse_args(training)
        except SystemExit as e:  # argparse printed why
            return 1 if e.code else 0
        problems += training_problems(train_args, stages=args.stages, **decoding)
        own = AVSRTask.own_classes(train_args)
        unchecked = f"; the model was not built, because of {', '.join(own)}" if own else ""
    elif FORMAT not in args.stages:
        raise ValueError("give --config and other arguments of avsr_train, or --exp_dir")
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return 1
    checked = args.exp_dir or (train_args.config if training else None) or "the arguments"
    print(f"{checked}: no problem found{unchecked}")
    return 0


if __name__ == "__main__":
    run(main)
