#!/usr/bin/env python3
r"""Check a training config, its data and its decoding settings before starting.

Takes the arguments of ``avsr_train`` and looks at every part of the model (built without weights),
optimizer and schedule, data, base models, GPUs, free disk, the experiment's directory, the decoding
config, and the face detector. Prints one line for each problem and ends with status 1, or one line
that there are none. Nothing is written.

Example::

    python -m espnet_smop.bin.check_config --config conf/train_avsr.yaml \
        --output_dir exp/avsr_mine --inference_config conf/decode.yaml --stages 11-13 \
        --projector_conf routing=jejr
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.command import CommandParser, run


def stages_of(text: str) -> list[int]:
    """Return the stages of a list such as ``1 3-7 11``, separated by blanks or commas.

    Raises:
        argparse.ArgumentTypeError: it is no such list.
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
    """Return the parser of what this command takes besides the arguments of ``avsr_train``."""
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
        help="Stages of the recipe that will run. Files that an earlier one of them creates may "
        "still be missing",
    )
    parser.add_argument(
        "--data_dirs",
        nargs="*",
        type=Path,
        default=[],
        metavar="DIR",
        help="Data directories: with stage 3, those that it reads; otherwise the formatted ones",
    )
    parser.add_argument("--landmarks", default="auto", help="Source of facial landmarks in stage 3")
    parser.add_argument("--inference_config", type=Path, help="Decoding config")
    parser.add_argument(
        "--inference_args", default="", help="More arguments for avsr_inference, in quotes"
    )
    return parser


def main(cmd: Sequence[str] | None = None) -> int:
    """Print the problems; return 1 if there are any."""
    args, training = get_parser().parse_known_args(cmd)
    # Not before: --help need not wait for torch.
    from espnet_smop.experiments.check import training_problems
    from espnet_smop.tasks.avsr import AVSRTask

    try:
        train_args = AVSRTask.get_parser().parse_args(training)
    except SystemExit as e:  # the parser has said why
        return 1 if e.code else 0
    problems = training_problems(
        train_args,
        stages=args.stages,
        data_dirs=args.data_dirs,
        landmarks=args.landmarks,
        inference_config=args.inference_config,
        inference_args=args.inference_args,
    )
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return 1
    own = AVSRTask.own_classes(train_args)
    unchecked = f"; the model was not built, because of {', '.join(own)}" if own else ""
    print(f"{train_args.config or 'the arguments'}: no problem found{unchecked}")
    return 0


if __name__ == "__main__":
    run(main)
