"""Memory of a training step, computed from shapes: an estimate, not a measurement.

Counts the activations kept for the backward pass, with frozen bfloat16 weights under autocast: the
LLM's layers and adapters, the logits of all views, and encoders with adapters. Leaves out the
projector and its router losses (a few per cent), frozen encoders, whose activations are freed
before the LLM's are allocated, and CUDA's own memory (`RESERVED`).
"""

from peft.tuners.lora import LoraLayer
from torch import nn

from espnet_smop.decoder import four_bit
from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.decoder.mome import MoME
from espnet_smop.modality import FRAME_RATE
from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.views import View

RESERVED = 2 * 2**30
"""Bytes for the CUDA context, kernel workspaces and fragmentation."""


def frozen_bytes(model: ESPnetAVSRModel, *, quantize: str | None = None) -> int:
    """Return the memory of the frozen weights: bfloat16, or four bits in a quantised LLM's layers.

    Args:
        model: may be on the meta device, where nothing is quantised.
        quantize: as in ``decoder_conf``.
    """
    size = 2 * sum(p.numel() for p in model.parameters() if not p.requires_grad)
    if quantize is not None:
        packed = four_bit.num_weights(model.decoder.llm)
        size -= int((2 - four_bit.BYTES_PER_WEIGHT) * packed)
    return size


def activation_bytes(
    model: ESPnetAVSRModel, *, positions: int, text: int, frames: int, recompute: bool
) -> int | None:
    """Estimate the activation memory of a batch on one GPU.

    Args:
        model: may be on the meta device.
        positions: the LLM's in all views of a step, padding included.
        text: target tokens of the batch, which each view predicts.
        frames: video frames (25 a second).
        recompute: whether the LLM's layers are recomputed (``gradient_checkpointing``).

    Returns:
        Bytes; None for a user's own decoder.
    """
    if not isinstance(model.decoder, LLMDecoder):
        return None
    config = model.decoder.llm.config
    layers = config.num_hidden_layers
    kept = layers * _llm_layer_bytes(config.hidden_size, config.intermediate_size)
    kept += max(_llm_adapter_bytes(model.decoder, view) for view in model.views.all)
    if recompute:  # the inputs of all layers, and one layer at a time
        kept = layers * 2 * config.hidden_size + kept // layers
    readings = len(model.views.steps[0])
    total = positions * kept + readings * text * _logit_bytes(config.vocab_size)
    for frontend in model.frontends.values():
        if getattr(frontend, "has_lora", False):
            kept = frontend.num_layers * _encoder_layer_bytes(frontend.output_size())
            total += int(frames * frontend.frame_rate / FRAME_RATE) * (kept + _lora_bytes(frontend))
    return total


def _llm_layer_bytes(width: int, inner: int) -> int:
    """Bytes per position in a Llama-style layer.

    The two norms' inputs in float32; queries, keys, values (repeated for their heads) and the
    attention's output; the gated MLP's gate, its activation and the other factor.
    """
    return 2 * 4 * width + 4 * 2 * width + 3 * 2 * inner


def _encoder_layer_bytes(width: int) -> int:
    """Bytes per frame in a pre-norm encoder layer whose inner width is four times the width.

    As in the LLM, but the MLP keeps only its activation's input.
    """
    return 2 * 4 * width + 4 * 2 * width + 2 * 4 * width


def _llm_adapter_bytes(decoder: LLMDecoder, view: View) -> int:
    """Bytes per position in the adapters that a view uses."""
    with decoder.active(view):
        kept = _lora_bytes(decoder.llm)
        if decoder.mome is not None:
            kept += _mome_bytes(decoder.mome)
        return kept


def _lora_bytes(base: nn.Module) -> int:
    """Bytes per position in all active LoRA: their inputs and inner values."""
    return sum(
        2 * sum(layer.lora_A[name].weight.shape)
        for layer in base.modules()
        if isinstance(layer, LoraLayer)
        for name in layer.active_adapters
    )


def _mome_bytes(mome: MoME) -> int:
    """Bytes per position in all mixtures of adapters, as they compute on a CPU (``eager``).

    The input in float32 and bfloat16; the router's logits and softmax in float32; input, output and
    weighted output of each chosen expert; the experts' hidden layer before and after its
    activation.
    """
    total = 0
    for mixture in mome.layers:
        router = mixture.routers[mixture.current]
        shared = 0 if mixture.shared is None else mixture.shared.num_experts
        _, bottleneck, width = mixture.experts.w1.shape
        total += (4 + 2) * width + 2 * 4 * router.num_experts
        total += 3 * 2 * width * router.top_k + 2 * 2 * bottleneck * (router.top_k + shared)
    return total


def _logit_bytes(vocabulary: int) -> int:
    """Bytes per target: bfloat16 and float32 logits, log-probabilities, and both gradients."""
    return (2 + 4 + 4 + 4 + 2) * vocabulary
