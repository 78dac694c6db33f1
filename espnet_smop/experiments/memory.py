"""Memory of a training step's activations, computed from shapes: an estimate, not a measurement.

Counted is what the backward pass keeps, with frozen bfloat16 weights under autocast: the LLM's
layers, the logits, and encoders with adapters. Left out are the projector and the loss of its
routers (some per cent), frozen encoders, whose activations are freed before the LLM's arise, and
what CUDA itself takes (`RESERVED`).
"""

from torch import nn

from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.modality import FRAME_RATE
from espnet_smop.model import ESPnetAVSRModel

RESERVED = 2 * 2**30
"""Bytes for the CUDA context, the workspaces of kernels and fragmentation."""


def activation_bytes(
    model: ESPnetAVSRModel, *, positions: int, text: int, frames: int, recompute: bool
) -> int | None:
    """Estimate what a batch keeps for the backward pass on one GPU.

    Args:
        model: may be on the meta device.
        positions: of the LLM, padding included.
        text: target tokens.
        frames: video frames (25 a second).
        recompute: whether the LLM's layers are computed again (``gradient_checkpointing``).

    Returns:
        Bytes; None for a user's own decoder.
    """
    if not isinstance(model.decoder, LLMDecoder):
        return None
    config = model.decoder.llm.config
    layer = _llm_layer_bytes(config.hidden_size, config.intermediate_size)
    kept = config.num_hidden_layers * layer + _adapter_bytes(model.decoder.llm)
    if recompute:  # the inputs of all layers, and one layer at a time
        kept = config.num_hidden_layers * 2 * config.hidden_size + layer
    total = positions * kept + text * _logit_bytes(config.vocab_size)
    for frontend in model.frontends.values():
        if getattr(frontend, "has_lora", False):
            kept = frontend.num_layers * _encoder_layer_bytes(frontend.output_size())
            total += int(frames * frontend.frame_rate / FRAME_RATE) * (
                kept + _adapter_bytes(frontend)
            )
    return total


def _llm_layer_bytes(width: int, inner: int) -> int:
    """Bytes of a position in a layer of the Llama kind.

    The two norms' inputs in float32; queries, keys, values (repeated for their heads) and the
    attention's output; of the gated layer gate, its activation and the other factor.
    """
    return 2 * 4 * width + 4 * 2 * width + 3 * 2 * inner


def _encoder_layer_bytes(width: int) -> int:
    """Bytes of a frame in a pre-norm encoder layer whose inner width is four times the width.

    As in the LLM, but the inner layer keeps its activation's input alone.
    """
    return 2 * 4 * width + 4 * 2 * width + 2 * 4 * width


def _adapter_bytes(base: nn.Module) -> int:
    """Bytes of a position in all adapters: their inputs and inner values."""
    return sum(2 * sum(p.shape) for name, p in base.named_parameters() if "lora_A" in name)


def _logit_bytes(vocabulary: int) -> int:
    """Bytes of a target: bfloat16 and float32 logits, log-probabilities, and both gradients."""
    return (2 + 4 + 4 + 4 + 2) * vocabulary
