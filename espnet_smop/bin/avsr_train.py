#!/usr/bin/env python3
"""Train an audio-visual speech recogniser.

Example::

    python -m espnet_smop.bin.avsr_train --print_config
    python -m espnet_smop.bin.avsr_train --config conf/train_avsr.yaml \
        --output_dir exp/avsr --train_data_path_and_name_and_type dump/raw/train/text,text,text …
"""

from espnet_smop.tasks.avsr import AVSRTask


def get_parser():
    """Return the parser of the task."""
    return AVSRTask.get_parser()


def main(cmd=None):
    """Run the training that the command line describes."""
    AVSRTask.main(cmd=cmd)


if __name__ == "__main__":
    main()
