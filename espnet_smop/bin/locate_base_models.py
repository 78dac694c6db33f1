#!/usr/bin/env python3
"""Find, and if need be fetch, the base models that a training config names.

Prints a line ``PART MODEL DIRECTORY`` for each, or with ``--named`` only ``PART MODEL``. Run it
where there is network; jobs on nodes without it then find the models in the hub's cache or in the
directories named.

Example::

    python -m espnet_smop.bin.locate_base_models conf/train_avsr.yaml
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.base_model import BaseModelError, locate
from espnet_smop.config import ConfigError, load_config

_PARTS = ("audio_frontend", "video_frontend", "decoder")
# Weights in other frameworks' formats are left where they are.
_PATTERNS = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt", "*.gguf")


def named_models(config: Path) -> dict[str, str]:
    """Return the ``model:`` of each part that a config sets."""
    settings = load_config(config)
    models = {}
    for part in _PARTS:
        conf = settings.get(f"{part}_conf") or {}
        if settings.get(part, "default") is not None and "model" in conf:
            models[part] = conf["model"]
    return models


def main(cmd: Sequence[str] | None = None) -> None:
    """Locate the models of the config that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="Training config")
    parser.add_argument(
        "--named", action="store_true", help="Only say which are named, whether there or not"
    )
    args = parser.parse_args(cmd)
    try:
        for part, model in named_models(args.config).items():
            where = () if args.named else (locate(model, patterns=_PATTERNS),)
            print(part, model, *where, flush=True)
    except (BaseModelError, ConfigError, OSError) as e:
        sys.exit(f"locate_base_models: {e}")


if __name__ == "__main__":
    main()
