"""Convert a published AV-HuBERT checkpoint into a directory that `AVHuBERTFrontend` loads.

Example::

    python -m espnet_smop.bin.convert_avhubert --checkpoint large_vox_iter5.pt \
        --out downloads/avhubert_large_lrs3_vox
"""

import argparse
import sys

from espnet_smop.base_model import BaseModelError
from espnet_smop.checkpoint.fairseq import convert, read_checkpoint
from espnet_smop.frontend.avhubert import save


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = argparse.ArgumentParser(
        prog="python -m espnet_smop.bin.convert_avhubert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, help="fairseq checkpoint (.pt)")
    parser.add_argument("--out", required=True, help="directory to write")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = get_parser().parse_args(argv)
    try:
        config, weights = convert(read_checkpoint(args.checkpoint), source=args.checkpoint)
    except BaseModelError as e:
        print(f"convert_avhubert: {e}", file=sys.stderr)
        return 1
    save(config, weights, args.out)
    parameters = sum(w.numel() for w in weights.values())
    print(
        f"{args.out}: {config.encoder_layers} layers of width {config.encoder_embed_dim}, "
        f"{parameters / 1e6:.1f} M weights"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
