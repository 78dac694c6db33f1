"""Convert a published AV-HuBERT checkpoint into a directory that `AVHuBERTFrontend` loads."""

import argparse
import sys

from espnet_smop.base_model import BaseModelError
from espnet_smop.checkpoint.fairseq import convert, read_checkpoint
from espnet_smop.frontend.avhubert import save


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="convert_avhubert", description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="fairseq checkpoint (.pt)")
    parser.add_argument("--out", required=True, help="directory to write")
    args = parser.parse_args(argv)
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
