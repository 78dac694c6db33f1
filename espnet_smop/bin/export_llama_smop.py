#!/usr/bin/env python3
"""Write an imported model's trained weights back into a checkpoint with the public code's names.

For a model that was imported by ``import_llama_smop`` and perhaps trained further. All else, the
bases and what only they need, is taken from the checkpoint that it was imported from.

Example::

    python -m espnet_smop.bin.export_llama_smop --exp exp/avsr_llama_smop \
        --avsr_model_file valid.acc.ave.pth --original llama_smop.pth --out llama_smop_further.pth
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from espnet_smop.checkpoint.llama_smop import read_state, write_back
from espnet_smop.fileio.atomic import atomic_path
from espnet_smop.tasks.avsr import AVSRTask


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = argparse.ArgumentParser(
        prog="python -m espnet_smop.bin.export_llama_smop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--exp", required=True, type=Path, help="Experiment, with config.yaml")
    parser.add_argument("--avsr_model_file", default="valid.acc.ave.pth", help="Checkpoint in it")
    parser.add_argument("--original", required=True, help="The checkpoint that was imported")
    parser.add_argument("--out", required=True, help="The flat state dict to write")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Export what the command line names."""
    logging.basicConfig(level=logging.WARNING)
    args = get_parser().parse_args(cmd)
    try:
        config, weights = args.exp / "config.yaml", args.exp / args.avsr_model_file
        model, _ = AVSRTask.load_model(str(config), str(weights))
        state = write_back(model, read_state(args.original))
        with atomic_path(args.out) as partial:
            torch.save(state, partial)
    except (RuntimeError, ValueError, OSError) as e:  # CheckpointError, BaseModelError too
        sys.exit(f"export_llama_smop: {e}")
    print(f"{args.out}: {len(state)} weights")


if __name__ == "__main__":
    main()
