"""The names that published Llama-SMoP checkpoints give to a router and its experts.

``gate.weight``, and of expert E ``experts.E.0`` and ``experts.E.2`` (linear layers) and
``experts.E.3`` (LayerNorm), each with ``weight`` and ``bias``.
"""

from collections.abc import Mapping

import torch

from espnet_smop.projector.experts import ExpertPool
from espnet_smop.projector.router import Router

_EXPERT = {
    "0.weight": "w1",
    "0.bias": "b1",
    "2.weight": "w2",
    "2.bias": "b2",
    "3.weight": "scale",
    "3.bias": "shift",
}


def to_public(router: Router, pool: ExpertPool) -> dict[str, torch.Tensor]:
    """Return the parameters under their public names."""
    state = {"gate.weight": router.gate.weight.detach().clone()}
    for e in range(pool.num_experts):
        for public, own in _EXPERT.items():
            stacked = getattr(pool, own)
            if stacked is not None:
                state[f"experts.{e}.{public}"] = stacked[e].detach().clone()
    return state


@torch.no_grad()
def load_public(state: Mapping[str, torch.Tensor], router: Router, pool: ExpertPool) -> None:
    """Copy parameters under public names into a router and a pool of the same shape.

    Raises:
        ValueError: names or shapes are not those of ``router`` and ``pool``.
    """
    expected = to_public(router, pool)
    if missing := expected.keys() - state.keys():
        raise ValueError(f"the state has no {', '.join(sorted(missing))}")
    if unknown := state.keys() - expected.keys():
        raise ValueError(f"the state has {', '.join(sorted(unknown))}, which do not fit the pool")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise ValueError(
                f"{name} has shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
            )
    router.gate.weight.copy_(state["gate.weight"])
    for public, own in _EXPERT.items():
        stacked = getattr(pool, own)
        if stacked is not None:
            for e in range(pool.num_experts):
                stacked[e].copy_(state[f"experts.{e}.{public}"])
