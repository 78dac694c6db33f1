#!/usr/bin/env python3
"""Train an audio-visual speech recogniser.

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

import sys

import torch

from espnet_smop.tasks.avsr import AVSRTask


def get_parser():
    """Return the parser of the task."""
    parser = AVSRTask.get_parser()
    parser.description = __doc__
    return parser


def main(cmd=None):
    """Run the training that the command line describes."""
    args = get_parser().parse_args(cmd)
    gpus = torch.cuda.device_count() if args.ngpu else 0
    if args.ngpu > gpus:
        sys.exit(
            f"avsr_train: --ngpu {args.ngpu}, but {gpus} GPUs are to be seen here. Check "
            "nvidia-smi, CUDA_VISIBLE_DEVICES and the job's partition, or train on the CPU by "
            "--ngpu 0"
        )
    # A process for each GPU, also without the launcher: DataParallel is not for this model.
    args.multiprocessing_distributed |= args.ngpu > 1
    AVSRTask.main(args=args)


if __name__ == "__main__":
    main()
