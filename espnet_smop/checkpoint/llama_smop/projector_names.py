"""The names that published Llama-SMoP and Llama-AVSR checkpoints give to a projector's weights.

A router is ``gate.weight``, and expert E ``experts.E.0`` and ``experts.E.2`` (linear layers) and
``experts.E.3`` (LayerNorm), each with ``weight`` and ``bias``. A dense projector, one expert
without a router, is ``0``, ``2`` and perhaps ``3``.
"""

from collections.abc import Iterator, Mapping

import torch

from espnet_smop.projector.experts import ExpertPool
from espnet_smop.projector.router import NoRouter, Router

_EXPERT = {
    "0.weight": "w1",
    "0.bias": "b1",
    "2.weight": "w2",
    "2.bias": "b2",
    "3.weight": "scale",
    "3.bias": "shift",
}


def _places(router: Router | NoRouter, pool: ExpertPool) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the public names and, as views, the parameters that they stand for."""
    sparse = isinstance(router, Router)
    if sparse:
        yield "gate.weight", router.gate.weight.detach()
    for e in range(pool.num_experts):
        for public, own in _EXPERT.items():
            stacked = getattr(pool, own)
            if stacked is not None:
                yield f"experts.{e}.{public}" if sparse else public, stacked[e].detach()


def to_public(router: Router | NoRouter, pool: ExpertPool) -> dict[str, torch.Tensor]:
    """Return the parameters under their public names."""
    return {name: tensor.clone() for name, tensor in _places(router, pool)}


@torch.no_grad()
def load_public(
    state: Mapping[str, torch.Tensor], router: Router | NoRouter, pool: ExpertPool
) -> None:
    """Copy parameters under public names into a router and a pool of the same shape.

    Raises:
        ValueError: names or shapes are not those of ``router`` and ``pool``.
    """
    places = dict(_places(router, pool))
    if missing := places.keys() - state.keys():
        raise ValueError(f"the state has no {', '.join(sorted(missing))}")
    if unknown := state.keys() - places.keys():
        raise ValueError(f"the state has {', '.join(sorted(unknown))}, which do not fit the pool")
    for name, tensor in places.items():
        if state[name].shape != tensor.shape:
            raise ValueError(
                f"{name} has shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
            )
    for name, tensor in places.items():
        tensor.copy_(state[name])
