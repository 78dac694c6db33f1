#!/usr/bin/env python3
"""Write the LLM of an experiment, adapters merged in, as a plain Hugging Face directory.

The directory holds weights, configuration and tokenizer and loads with ``from_pretrained``
anywhere, or as ``decoder_conf: {model: DIR, lora: null}``. Delimiters and rows added to the
vocabulary are not part of the LLM and stay in the experiment's checkpoint.

Example::

    python -m espnet_smop.bin.merge_lora --config exp/avsr_train_avsr_smop3_dedr/config.yaml \
        --model_file exp/avsr_train_avsr_smop3_dedr/valid.acc.ave.pth --out exp/merged_llm
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM

from espnet_smop.base_model import frozen_keys
from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.fileio.atomic import atomic_directory

_DECODER = "decoder."


@torch.no_grad()
def merged_state(decoder: LLMDecoder) -> dict[str, torch.Tensor]:
    """Return the LLM's weights with the adapters added, in float32 before rounding to its dtype.

    The decoder stays as it is. Weights without an adapter are shared with it.
    """
    state = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in decoder.llm.state_dict().items()
        if "lora_" not in name
    }
    for name, layer in decoder.llm.named_modules():
        if isinstance(layer, LoraLayer):
            weight = state[f"{name}.weight"]
            for adapter in layer.active_adapters:
                update = layer.get_delta_weight(adapter).to(weight.device)
                state[f"{name}.weight"] = (weight.float() + update).to(weight.dtype)
    return state


def write_merged(decoder: LLMDecoder, out: str | Path) -> None:
    """Write the LLM of ``decoder`` with its adapters merged; replaces ``out`` if it exists."""
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(decoder.llm.config)
    llm.load_state_dict(merged_state(decoder), assign=True)
    llm.tie_weights()
    llm.generation_config = decoder.llm.generation_config
    with atomic_directory(out) as directory:
        llm.save_pretrained(directory)
        decoder.tokenizer.save_pretrained(directory)


def load_decoder(config: str | Path, model_file: str | Path) -> LLMDecoder:
    """Build the decoder of an experiment, without its encoders, with trained weights.

    Raises:
        ValueError: the experiment's decoder is not this one, or the checkpoint does not fit.
    """
    settings = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    if settings.get("decoder") != "llm":
        raise ValueError(f"{config}: the decoder is '{settings.get('decoder')}', not 'llm'")
    decoder = LLMDecoder(**settings["decoder_conf"])
    state = {
        name.removeprefix(_DECODER): tensor
        for name, tensor in torch.load(model_file, map_location="cpu", weights_only=True).items()
        if name.startswith(_DECODER)
    }
    wanted = decoder.state_dict().keys() - frozen_keys(decoder)
    if state.keys() != wanted:
        raise ValueError(
            f"{model_file} does not fit {config}: missing {sorted(wanted - state.keys())}, "
            f"unexpected {sorted(state.keys() - wanted)}"
        )
    decoder.load_state_dict(state, strict=False)
    return decoder


def get_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m espnet_smop.bin.merge_lora",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="the experiment's config.yaml")
    parser.add_argument("--model_file", required=True, help="a checkpoint, such as EXP/5epoch.pth")
    parser.add_argument("--out", required=True, help="directory to write; replaced if it exists")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args = get_parser().parse_args(cmd)
    decoder = load_decoder(args.config, args.model_file)
    write_merged(decoder, args.out)
    logging.info(f"{args.out}: {args.model_file} merged into {decoder.llm.config._name_or_path}")


if __name__ == "__main__":
    main()
