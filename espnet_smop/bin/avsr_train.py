#!/usr/bin/env python3
r"""Train an audio-visual speech recogniser.

Example::

    python -m espnet_smop.bin.avsr_train --print_config
    python -m espnet_smop.bin.avsr_train --config conf/train_avsr_smop3_dedr.yaml --ngpu 0 \
        --output_dir exp/avsr_mine \
        --train_data_path_and_name_and_type dump/raw/train/wav.scp,speech,sound \
        --train_data_path_and_name_and_type dump/raw/train/video.scp,video,video \
        --train_data_path_and_name_and_type dump/raw/train/text,text,text \
        --valid_data_path_and_name_and_type dump/raw/valid/wav.scp,speech,sound \
        --valid_data_path_and_name_and_type dump/raw/valid/video.scp,video,video \
        --valid_data_path_and_name_and_type dump/raw/valid/text,text,text \
        --train_shape_file exp/avsr_stats/train/duration_shape \
        --valid_shape_file exp/avsr_stats/valid/duration_shape
"""

import argparse
from collections.abc import Sequence

from espnet_smop.command import CommandHelp, run
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.tasks.settings import check_none, gpu_problems


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the task."""
    parser = AVSRTask.get_parser()
    parser.description = __doc__
    parser.formatter_class = CommandHelp
    # Two hundred options would bury an error.
    parser.usage = "python -m espnet_smop.bin.avsr_train [--config FILE] [--option VALUE]…"
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the training that the command line describes.

    Raises:
        ValueError: fewer GPUs are visible than ``--ngpu`` asks for.
    """
    args = get_parser().parse_args(cmd)
    check_none(gpu_problems(args.ngpu))
    # One process per GPU, also without the launcher: the model does not support DataParallel.
    args.multiprocessing_distributed |= args.ngpu > 1
    AVSRTask.main(args=args)


if __name__ == "__main__":
    run(main)
