"""Frozen LLMs with 4-bit weights (NF4 of QLoRA, arXiv 2305.14314), using bitsandbytes."""

from collections.abc import Collection
from types import ModuleType

import torch
from torch import nn
from transformers import PreTrainedModel

from espnet_smop.base_model import BaseModelError, on_meta

FORMATS = (None, "nf4")

BYTES_PER_WEIGHT = 1 / 2 + 1 / 64 + 4 / (64 * 256)
"""Four bits, one byte for the scale of 64 weights, and one float32 to scale 256 of these."""


def check_format(name: str | None) -> None:
    """Check ``decoder_conf.quantize``.

    Raises:
        ValueError: it is not a known format.
        BaseModelError: loading weights needs bitsandbytes, which is not installed.
    """
    if name not in FORMATS:
        raise ValueError(f"quantize is {name!r}, expected nf4 or null")
    if name is not None and not on_meta():
        _bitsandbytes()


def quantize(llm: PreTrainedModel) -> None:
    """Store the weights of an LLM's layers as NF4, in place and on the GPU if there is one.

    Products are computed in the dtype that the weights had. Embeddings, output layer and
    normalisations keep it.
    """
    bnb = _bitsandbytes()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for parent, name, linear in _linears(llm.base_model):
        dtype = linear.weight.dtype
        packed = bnb.nn.Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            compute_dtype=dtype,
            quant_type="nf4",
            device="meta",
        )
        packed.weight = bnb.nn.Params4bit(
            linear.weight.data, requires_grad=False, quant_type="nf4", module=packed
        ).to(device)
        packed.bias = linear.bias
        setattr(parent, name, packed)
    llm.is_loaded_in_4bit = True  # peft checks it


def num_weights(llm: nn.Module) -> int:
    """Return how many weights `quantize` packs, or would; adapters on them do not count."""
    weights = (linear.weight for _, _, linear in _linears(llm.base_model))
    return sum(weight.numel() for weight in weights if not weight.requires_grad)


def _linears(module: nn.Module) -> Collection[tuple[nn.Module, str, nn.Linear]]:
    """Return the linear layers, each with the module that holds it and its name there."""
    return [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear
    ]


def _bitsandbytes() -> ModuleType:
    try:
        import bitsandbytes
    except ImportError as e:
        raise BaseModelError(
            "quantize: nf4 needs bitsandbytes: pip install 'bitsandbytes>=0.50', or set "
            "decoder_conf.quantize: null"
        ) from e
    return bitsandbytes
