#!/usr/bin/env python3
"""Print which modalities the model of a config gets: ``audio``, ``video`` or ``audio video``.

Example::

    python -m espnet_smop.bin.config_modalities conf/train_asr_smop4.yaml --max_epoch 5
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.config import load_config


def modalities(config: Path, arguments: Sequence[str] = ()) -> list[str]:
    """Return the modalities whose frontend is set by a config and arguments over it.

    Raises:
        ValueError: the config cannot be read, or no frontend is set.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    # Absent from the config, a frontend is the task's default class.
    parser.add_argument("--audio_frontend", default="default")
    parser.add_argument("--video_frontend", default="default")
    parser.set_defaults(**load_config(config))
    args, _ = parser.parse_known_args(arguments)
    frontends = {"audio": args.audio_frontend, "video": args.video_frontend}
    found = [m for m, value in frontends.items() if str(value).lower() not in ("none", "null", "")]
    if not found:
        raise ValueError(f"{config} sets neither audio_frontend nor video_frontend")
    return found


def main(cmd: Sequence[str] | None = None) -> None:
    """Print the modalities."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="Training config, or an experiment's config.yaml")
    args, rest = parser.parse_known_args(cmd)
    try:
        print(*modalities(args.config, rest))
    except (OSError, ValueError) as e:
        sys.exit(f"config_modalities: {e}")


if __name__ == "__main__":
    main()
