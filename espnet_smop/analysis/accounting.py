"""Parameters and compute of a system: what there is, what is trained, and what a token uses."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.projector.experts import ExpertPool
from espnet_smop.projector.router import Router
from espnet_smop.skeleton import use_skeletons
from espnet_smop.tasks.avsr import AVSRTask


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters.

    Attributes:
        total: of the whole model, frozen base models included.
        active: of these, those that an utterance's token goes through: K of a pool's N experts.
        trained: those that training changes.
        encoders: of the encoders.
        projector: of the projector.
        projector_active: of these, the active ones.
        llm: of the LLM with its adapters.
    """

    total: int
    active: int
    trained: int
    encoders: int
    projector: int
    projector_active: int
    llm: int


def count_parameters(config: dict[str, Any], skeletons: Path) -> Parameters:
    """Count the parameters of an experiment's model, without its weights.

    Args:
        config: the experiment's ``config.yaml``.
        skeletons: directory for the shapes of published base models that are not here.

    Raises:
        BaseModelError: the sizes of a base model are not known.
    """
    args = argparse.Namespace(**{**config, "base_fingerprints": {}})
    use_skeletons(args, skeletons)
    with torch.device("meta"):
        model = AVSRTask.build_model(args)
    idle = _idle(model)
    total, projector = _count(model), _count(model.projector)
    return Parameters(
        total=total,
        active=total - idle,
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        encoders=_count(model.frontends),
        projector=projector,
        projector_active=projector - idle,
        llm=_count(model.decoder),
    )


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _idle(model: ESPnetAVSRModel) -> int:
    """Return the parameters of those experts that a token does not go to."""
    top_k = next((m.top_k for m in model.projector.modules() if isinstance(m, Router)), 1)
    pools = [m for m in model.projector.modules() if isinstance(m, ExpertPool)]
    return sum(
        (pool.num_experts - min(top_k, pool.num_experts)) * _count(pool) // pool.num_experts
        for pool in pools
    )


@torch.no_grad()
def count_flops(model: ESPnetAVSRModel, batch: dict[str, torch.Tensor]) -> dict[str, int]:
    """Count the floating-point operations of recognising a batch, part by part.

    Those of matrix products, convolutions and attention are counted, a multiplication and an
    addition as two. The LLM reads media tokens, prompt and the reference text once: what greedy
    decoding costs with a cache; a beam of B costs the text's part B times. Utterances should come
    one by one, since padding counts.

    Args:
        model: in evaluation mode.
        batch: as for its ``forward``.

    Returns:
        ``audio encoder`` and ``video encoder`` as far as there, ``projector`` and ``LLM``.
    """
    inputs = {
        "audio": (batch.get("speech"), batch.get("speech_lengths")),
        "video": (batch.get("video"), batch.get("video_lengths")),
    }
    # The fused kernels of attention are not counted on every device, its plain products are.
    with sdpa_kernel(SDPBackend.MATH):
        return _count_flops(model, batch["text"], batch["text_lengths"], inputs)


def _count_flops(
    model: ESPnetAVSRModel,
    text: torch.Tensor,
    text_lengths: torch.Tensor,
    inputs: dict[str, tuple[torch.Tensor, torch.Tensor]],
) -> dict[str, int]:
    features, lengths, layers, flops = {}, {}, {}, {}
    for modality, frontend in model.frontends.items():
        with FlopCounterMode(display=False) as counter:
            if modality in model.projector.needs_layers:
                layers[modality], lengths[modality] = frontend.layers(*inputs[modality])
                features[modality] = layers[modality][-1]
            else:
                features[modality], lengths[modality] = frontend(*inputs[modality])
        flops[f"{modality} encoder"] = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        projected = model.projector(features, lengths, layers)
    flops["projector"] = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        model.decoder(projected.tokens, projected.lengths, text, text_lengths)
    flops["LLM"] = counter.get_total_flops()
    return flops
