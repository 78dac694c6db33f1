"""Parameter counts of a system: total, trained and active for a token."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from espnet_smop.skeleton import use_skeletons
from espnet_smop.tasks.avsr import AVSRTask


@dataclass(frozen=True)
class Parameters:
    """Parameter counts.

    Attributes:
        total: of the whole model, frozen base models included.
        active: parameters that a token goes through, K of a pool's N experts.
        trained: parameters that training changes.
        encoders: of the encoders.
        projector: of the projector.
        projector_active: active parameters of the projector.
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
        skeletons: directory to write the shapes of published base models to.

    Raises:
        BaseModelError: the sizes of a base model are unknown.
    """
    args = argparse.Namespace(**{**config, "base_fingerprints": {}})
    use_skeletons(args, skeletons)
    with torch.device("meta"):
        model = AVSRTask.build_model(args)
    total, projector = _count(model), _count(model.projector)
    projector_active = model.projector.num_active_parameters()
    return Parameters(
        total=total,
        active=total - projector + projector_active,
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        encoders=_count(model.frontends),
        projector=projector,
        projector_active=projector_active,
        llm=_count(model.decoder),
    )


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
