"""The LLM of an experiment as a plain Hugging Face model, with its adapters merged."""

from pathlib import Path

import torch
import yaml
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM

from espnet_smop.base_model import BaseModelError, frozen_keys, resolve_relative_to
from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.fileio.atomic import atomic_directory

_DECODER = "decoder."


@torch.no_grad()
def merged_state(decoder: LLMDecoder) -> dict[str, torch.Tensor]:
    """Return the LLM's weights with the adapters added in float32 and rounded to its dtype.

    The decoder is not changed. Weights without an adapter are shared with it. Of adapters per task
    or rates, those of the active view are added.
    """
    state = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in decoder.llm.state_dict().items()
        if "lora_" not in name
    }
    for name, layer in decoder.llm.named_modules():
        if isinstance(layer, LoraLayer):
            weight = state[f"{name}.weight"]
            updates = [layer.get_delta_weight(adapter) for adapter in layer.active_adapters]
            merged = sum((update.to(weight.device) for update in updates), weight.float())
            state[f"{name}.weight"] = merged.to(weight.dtype)
    return state


def write_merged(decoder: LLMDecoder, out: str | Path) -> None:
    """Write the LLM of ``decoder`` with its adapters merged; an existing ``out`` is replaced."""
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(decoder.llm.config)
    llm.load_state_dict(merged_state(decoder), assign=True)
    llm.tie_weights()
    llm.generation_config = decoder.llm.generation_config
    with atomic_directory(out) as directory:
        llm.save_pretrained(directory)
        decoder.tokenizer.save_pretrained(directory)


def load_decoder(config: str | Path, model_file: str | Path) -> LLMDecoder:
    """Build the decoder of an experiment, without its encoders, and load its trained weights.

    Args:
        config: the experiment's ``config.yaml``.
        model_file: the experiment's checkpoint.

    Raises:
        BaseModelError: the LLM is missing or is not that of the experiment.
        ValueError: the experiment has another kind of decoder, or the checkpoint does not fit.
    """
    settings = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    if settings.get("decoder") != "llm":
        raise ValueError(f"{config}: the decoder is '{settings.get('decoder')}', not 'llm'")
    conf = dict(settings["decoder_conf"])
    for key in ("model", "tokenizer"):
        if conf.get(key):
            conf[key] = resolve_relative_to(conf[key], Path(config).resolve().parent)
    if conf.get("mome") is not None:
        raise ValueError(
            f"{config}: the LLM has mixtures of adapters (decoder_conf.mome), which cannot be "
            "merged into a plain one"
        )
    conf.pop("quantize", None)  # adapters trained on four bits are added to the full weights
    state = {
        name.removeprefix(_DECODER): tensor
        for name, tensor in torch.load(model_file, map_location="cpu", weights_only=True).items()
        if name.startswith(_DECODER)
    }
    decoder = LLMDecoder(**conf)
    for adapters in decoder.active_view.adapters:  # of tasks or rates, which only a model knows
        adapters.add(sorted({name.split(".")[-2] for name in state if ".lora_A." in name}))
    for name, found in decoder.fingerprints().items():
        expected = (settings.get("base_fingerprints") or {}).get(f"{_DECODER}{name}", found)
        if found != expected:
            place = conf["model"] if name == "llm" else conf.get(name) or conf["model"]
            raise BaseModelError(
                f"{place} is not the {'LLM' if name == 'llm' else name} that {config} was trained "
                f"with (fingerprint {found}, expected {expected})"
            )
    wanted = decoder.state_dict().keys() - frozen_keys(decoder)
    if state.keys() != wanted:
        raise ValueError(
            f"{model_file} does not fit {config}: missing {sorted(wanted - state.keys())}, "
            f"unexpected {sorted(state.keys() - wanted)}"
        )
    decoder.load_state_dict(state, strict=False)
    return decoder
