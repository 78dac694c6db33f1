#!/usr/bin/env python3
"""Print the hidden width of a dense projector that has as many parameters as a mixture.

For each hidden width of the mixture's experts it prints a line ``WIDTH DENSE_WIDTH``. Parameters
are ``active``, those that a token uses (K of N experts), or ``total``.

Example::

    local/dense_width.py --mixture conf/train_avsr_smop4_dedr.yaml --widths 8 16
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.config import load_config, merge
from espnet_smop.results.parameters import count_parameters

RECIPE = Path(__file__).resolve().parents[1]


def projector_size(config: Path, hidden_size: int, parameters: str) -> int:
    """Return the number of the projector's parameters.

    Args:
        config: training config.
        hidden_size: replaces the config's.
        parameters: ``active`` or ``total``.
    """
    # The base models that stage 6 provides, wherever they are.
    models = {"audio_frontend": "whisper", "video_frontend": "avhubert", "decoder": "llm"}
    changes = {
        f"{part}_conf": {"model": str(RECIPE / "base_models" / name)}
        for part, name in models.items()
    }
    changes["projector_conf"] = {"hidden_size": hidden_size}
    defaults = {"model_conf": {}, "inference_conf": {}, "use_preprocessor": False}
    with tempfile.TemporaryDirectory() as skeletons:
        settings = merge(defaults, load_config(config))
        counted = count_parameters(merge(settings, changes), Path(skeletons))
    return counted.projector_active if parameters == "active" else counted.projector


def dense_widths(
    mixture: Path, dense: Path, widths: Sequence[int], parameters: str
) -> dict[int, int]:
    """Return the dense projector's hidden width for each of the mixture's experts'."""

    def line(config: Path) -> tuple[int, int]:
        # Both sizes are linear in the hidden width.
        one, two = (projector_size(config, width, parameters) for width in (1, 2))
        return two - one, 2 * one - two

    slope, constant = line(mixture)
    dense_slope, dense_constant = line(dense)
    return {
        width: max(1, round((slope * width + constant - dense_constant) / dense_slope))
        for width in widths
    }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mixture", type=Path, required=True, help="Training config")
    parser.add_argument(
        "--dense", type=Path, default=RECIPE / "conf" / "train_avsr_llama_avsr.yaml",
        help="Training config with projector: mlp (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--widths", type=int, nargs="+", required=True, help="Of the experts")
    parser.add_argument("--parameters", choices=("active", "total"), default="active")
    args = parser.parse_args()
    found = dense_widths(args.mixture, args.dense, args.widths, args.parameters)
    for width, dense_width in found.items():
        print(width, dense_width)


if __name__ == "__main__":
    main()
