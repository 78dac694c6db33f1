"""The public code's names of weights, and the parameters of this project that they denote.

A public checkpoint is a flat state dict of everything, base models included:

- ``audio_encoder.*`` is Whisper's encoder, ``video_encoder.*`` AV-HuBERT, ``llm.*`` the LLM;
- ``audiovisual_proj.*``, or ``audio_proj.*`` and ``video_proj.*``, are projectors. The router is
  ``gate.weight``, and expert E is ``experts.E.0`` and ``experts.E.2`` (linear layers) and
  ``experts.E.3`` (LayerNorm), each with ``weight`` and ``bias``. A dense projector, one expert
  without a router, is ``0``, ``2`` and perhaps ``3``;
- ``lora_{down,up}_{Q,V}.weight``, beside the projections that they adapt, are LoRA.
"""

from collections.abc import Iterator, Mapping

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from espnet_smop.frontend.avhubert import statistics_names
from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.projector.experts import ExpertPool
from espnet_smop.projector.router import NoRouter, Router
from espnet_smop.projector.smop import DEDR, JEJR

ENCODERS = {"audio": "audio_encoder.", "video": "video_encoder."}
PROJECTORS = {
    "audiovisual": "audiovisual_proj.",
    "audio": "audio_proj.",
    "video": "video_proj.",
}
LLM = "llm."
EMBEDDINGS = f"{LLM}model.embed_tokens.weight"
HEAD = f"{LLM}lm_head.weight"

_EXPERT = {
    "0.weight": "w1",
    "0.bias": "b1",
    "2.weight": "w2",
    "2.bias": "b2",
    "3.weight": "scale",
    "3.bias": "shift",
}
_LETTERS = {"q_proj": "Q", "v_proj": "V"}


class CheckpointError(RuntimeError):
    """A file is not a public checkpoint, or it contradicts the options or base models given."""


def trained_weights(model: ESPnetAVSRModel) -> dict[str, torch.Tensor]:
    """Return the weights of projectors and adapters, as views, by their public names.

    Raises:
        CheckpointError: the model has trained parts that public checkpoints have no names for.
    """
    weights = {}
    for prefix, router, pool in _projectors(model):
        weights |= {f"{prefix}{n}": w for n, w in projector_weights(router, pool).items()}
    weights |= _lora_weights(LLM, model.decoder.llm)
    if "video" in model.frontends:
        weights |= _lora_weights(ENCODERS["video"], model.frontends["video"].encoder)
    named = {w.untyped_storage().data_ptr() for w in weights.values()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.untyped_storage().data_ptr() not in named:
            raise CheckpointError(f"public checkpoints have no name for {name}, which is trained")
    return weights


def video_statistics(model: ESPnetAVSRModel) -> dict[str, torch.Tensor]:
    """Return AV-HuBERT's BatchNorm statistics, which public training changed, by public names."""
    if "video" not in model.frontends:
        return {}
    encoder = model.frontends["video"].encoder
    buffers = dict(encoder.named_buffers())
    return {ENCODERS["video"] + name: buffers[name] for name in statistics_names(encoder)}


def projector_weights(router: Router | NoRouter, pool: ExpertPool) -> dict[str, torch.Tensor]:
    """Return the weights of one projector, as views, by their public names."""
    sparse = isinstance(router, Router)
    weights = {"gate.weight": router.gate.weight.detach()} if sparse else {}
    for e in range(pool.num_experts):
        for public, own in _EXPERT.items():
            stacked = getattr(pool, own)
            if stacked is not None:
                weights[f"experts.{e}.{public}" if sparse else public] = stacked[e].detach()
    return weights


@torch.no_grad()
def copy_from(state: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> None:
    """Overwrite weights with those of the same names in a state dict.

    Raises:
        CheckpointError: the state dict lacks a name, or has it with another shape.
    """
    for name, weight in weights.items():
        if name not in state:
            raise CheckpointError(f"the checkpoint has no {name}")
        if state[name].shape != weight.shape:
            raise CheckpointError(
                f"{name} has shape {tuple(state[name].shape)}, expected {tuple(weight.shape)}"
            )
    for name, weight in weights.items():
        weight.copy_(state[name])


def _projectors(model: ESPnetAVSRModel) -> Iterator[tuple[str, nn.Module, ExpertPool]]:
    """Yield the public prefix, router and experts of each projector."""
    mixture = getattr(model.projector, "mixture", None)
    if model.projector.needs_layers:
        raise CheckpointError("public checkpoints have no names for layer fusion")
    if isinstance(mixture, JEJR) and not mixture.align.linears:
        yield PROJECTORS["audiovisual"], mixture.router, mixture.pool
    elif isinstance(mixture, DEDR):
        for modality, pool in mixture.pools.items():
            yield PROJECTORS[modality], mixture.routers[modality], pool
    else:
        raise CheckpointError(
            "public checkpoints have no names for this projector, only for the dense projector, "
            "DEDR, and JEJR with encoders (or stacks of frames) of one width"
        )


def _lora_weights(prefix: str, base: nn.Module) -> dict[str, torch.Tensor]:
    weights = {}
    for name, layer in base.named_modules():
        if isinstance(layer, LoraLayer):
            attention, _, projection = name.rpartition(".")
            if projection not in _LETTERS:
                raise CheckpointError(f"public checkpoints have no name for adapters on {name}")
            for direction, part in (("down", layer.lora_A), ("up", layer.lora_B)):
                public = f"{prefix}{attention}.lora_{direction}_{_LETTERS[projection]}.weight"
                weights[public] = part["default"].weight.detach()
    return weights
