"""The public code's weight names, mapped to this project's parameters.

A public checkpoint is a flat state dict of everything, base models included:

- ``audio_encoder.*`` is Whisper's encoder, ``video_encoder.*`` AV-HuBERT, ``llm.*`` the LLM;
- ``audiovisual_proj.*``, or ``audio_proj.*`` and ``video_proj.*``, are projectors. The router is
  ``gate.weight``, and expert E is ``experts.E.0`` and ``experts.E.2`` (linear layers) and
  ``experts.E.3`` (LayerNorm), each with ``weight`` and ``bias``. A dense projector, one expert
  without a router, is ``0``, ``2`` and optionally ``3``;
- ``lora_{down,up}_{Q,V}.weight``, beside the projections that they adapt, are LoRA.

Omni-AVSR and Llama-MTSK have several rates, and Omni-AVSR three tasks:

- ``audio_proj.I.*`` is the projector of the I-th audio rate;
- ``lora_{down,up}_{Q,V}.TASK.weight`` is the LoRA of a task (``audio``, ``video``, ``audiovisual``)
  and ``lora_{down,up}_{Q,V}_shared.weight`` that of all tasks (Omni-AVSR);
- ``local_loras.I.lora_*`` is the LoRA of the I-th pair of rates and ``global_lora.lora_*`` that of
  all pairs (Llama-MTSK);
- ``MoE_adapter.*``, in each layer of the LLM, is its mixture of adapters (MoME): the router is
  ``gate.weight``, or ``gate.I.weight`` for the I-th pair of rates, and ``experts.E.*`` and
  ``shared_experts.E.*`` are ``linear_{down,up}sample``, each with ``weight`` and ``bias``;
- ``prompt_TASK`` are the embeddings of the prompts (Omni-AVSR).
"""

from collections.abc import Iterator, Mapping

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from espnet_smop.decoder.adapters import SHARED
from espnet_smop.decoder.mome import MoME
from espnet_smop.frontend.avhubert import statistics_names
from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.projector.experts import ExpertPool
from espnet_smop.projector.per_rate import MixturePerRate
from espnet_smop.projector.router import NoRouter, Router
from espnet_smop.projector.smop import DEDR, JEJR
from espnet_smop.views import rate_pairs_of, rates_tag

ENCODERS = {"audio": "audio_encoder.", "video": "video_encoder."}
PROJECTORS = {
    "audiovisual": "audiovisual_proj.",
    "audio": "audio_proj.",
    "video": "video_proj.",
}
TASKS = {"audio": "asr", "video": "vsr", "audiovisual": "avsr"}
"""Public name → task."""
PROMPT = "prompt_"
LLM = "llm."
ADAPTERS = f"{LLM}model.layers.{{}}.MoE_adapter."
"""Prefix of the mixture of adapters in a layer."""
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
_ADAPTER = {
    "linear_downsample.weight": "w1",
    "linear_downsample.bias": "b1",
    "linear_upsample.weight": "w2",
    "linear_upsample.bias": "b2",
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
    weights |= _lora_weights(LLM, model.decoder.llm, _lora_of_views(model))
    if model.decoder.mome is not None:
        weights |= _mome_weights(model.decoder.mome)
    if "video" in model.frontends:
        encoder = model.frontends["video"].encoder
        weights |= _lora_weights(ENCODERS["video"], encoder, {"default": _PLAIN})
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
    if isinstance(mixture, MixturePerRate):
        yield from _projectors_per_rate(model.projector.rates, mixture)
    elif isinstance(mixture, JEJR) and not mixture.align.linears:
        yield PROJECTORS["audiovisual"], mixture.router, mixture.pool
    elif isinstance(mixture, DEDR):
        for modality, pool in mixture.pools.items():
            yield PROJECTORS[modality], mixture.routers[modality], pool
    else:
        raise CheckpointError(
            "public checkpoints have no names for this projector, only for the dense projector, "
            "DEDR, and JEJR with encoders (or stacks of frames) of one width"
        )


def _projectors_per_rate(
    rates: Mapping[str, tuple[int, ...]], mixtures: MixturePerRate
) -> Iterator[tuple[str, nn.Module, ExpertPool]]:
    for modality, own in rates.items():
        for i, rate in enumerate(own):
            mixture = dict(mixtures.mixtures).get(rates_tag({modality: rate}))
            dense = isinstance(mixture, DEDR) and isinstance(mixture.routers[modality], NoRouter)
            if not dense:
                raise CheckpointError("public checkpoints have no names for mixtures per rate")
            yield f"{PROJECTORS[modality]}{i}.", NoRouter(), mixture.pools[modality]


# Public name of a LoRA weight in the attention module, by direction and letter.
_PLAIN = "lora_{}_{}.weight"


def _lora_of_views(model: ESPnetAVSRModel) -> dict[str, str]:
    """Return adapter → pattern of its public names."""
    by_task = {task: f"lora_{{}}_{{}}.{public}.weight" for public, task in TASKS.items()}
    pairs = [rates_tag(pair) for pair in rate_pairs_of(model.projector.rates)]
    by_rates = {tag: f"local_loras.{i}.{_PLAIN}" for i, tag in enumerate(pairs)}
    names = {name for layer in model.decoder.llm.modules() if isinstance(layer, LoraLayer)
             for name in layer.lora_A}  # fmt: skip
    shared = "lora_{}_{}_shared.weight" if names & by_task.keys() else f"global_lora.{_PLAIN}"
    return {"default": _PLAIN, SHARED: shared, **by_task, **by_rates}


def _lora_weights(
    prefix: str, base: nn.Module, patterns: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    weights = {}
    for name, layer in base.named_modules():
        if isinstance(layer, LoraLayer):
            attention, _, projection = name.rpartition(".")
            if projection not in _LETTERS:
                raise CheckpointError(f"public checkpoints have no name for adapters on {name}")
            for direction, part in (("down", layer.lora_A), ("up", layer.lora_B)):
                for adapter, linear in part.items():
                    if adapter not in patterns:
                        raise CheckpointError(f"public checkpoints have no name for LoRA {adapter}")
                    public = patterns[adapter].format(direction, _LETTERS[projection])
                    weights[f"{prefix}{attention}.{public}"] = linear.weight.detach()
    return weights


def _mome_weights(mome: MoME) -> dict[str, torch.Tensor]:
    weights = {}
    for n, mixture in enumerate(mome.layers):
        prefix = ADAPTERS.format(n)
        for i, router in enumerate(mixture.routers.values()):
            number = f".{i}" if mome.router_per_rate else ""
            weights[f"{prefix}gate{number}.weight"] = router.gate.weight.detach()
        for kind, pool in (("experts", mixture.experts), ("shared_experts", mixture.shared)):
            for public, own in _ADAPTER.items() if pool is not None else ():
                for e, weight in enumerate(getattr(pool, own).detach()):
                    weights[f"{prefix}{kind}.{e}.{public}"] = weight
    return weights
