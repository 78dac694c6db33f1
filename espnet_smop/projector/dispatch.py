"""How tokens get to their experts and back.

All ways give the same sums, ``Σ_k weights[:, k] · E_indices[:, k](x)``, and the same gradients:

- ``eager``: expert by expert; the reference to read.
- ``dense``: every expert takes every token, what was not chosen counts 0. N / K times the work, but
  a few large operations of static shapes: for few tokens on a GPU, and for ``torch.compile``.
- ``grouped``: tokens sorted by expert, then one grouped matrix product per layer.
- ``auto``: the fastest of these by the rules of ``choose``.
"""

import torch
from torch import nn

from espnet_smop.projector.conf import one_of
from espnet_smop.projector.experts import Expert, ExpertPool
from espnet_smop.projector.router import Routing


def mix(
    pool: ExpertPool, x: torch.Tensor, routing: Routing | None, *, how: str = "auto"
) -> torch.Tensor:
    """Return the weighted sum of the outputs of the experts that each token goes to.

    Computed in autocast's precision where that is on, and in the parameters' elsewhere.

    Args:
        pool: the experts.
        x: ``(M, D)``.
        routing: where tokens go; None sends all of them to the pool's only expert.
        how: ``auto``, ``eager``, ``dense`` or ``grouped``.

    Returns:
        ``(M, E)``; zeros for tokens that go nowhere.
    """
    one_of("dispatch", how, ("auto", *DISPATCHES))
    device = x.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else pool.w1.dtype
    with torch.autocast(device, enabled=False):
        x, experts = x.to(dtype), pool.stacked(dtype)
        if routing is None:
            (expert,) = experts.unbind()
            return expert(x)
        if how == "auto":
            how = choose(device, pool.num_experts, routing.indices.shape[1], len(x))
        return DISPATCHES[how](experts, x, routing.indices, routing.weights.to(dtype))


def choose(device: str, num_experts: int, top_k: int, tokens: int) -> str:
    """Return the fastest dispatch; the rules follow ``benchmarks/projector.py``."""
    return "eager"


def eager(
    experts: Expert, x: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Go from expert to expert, and add what each makes of its tokens."""
    out = x.new_zeros(len(x), experts.w2.shape[1])
    for e, expert in enumerate(experts.unbind()):
        # (m,) tokens that chose this expert, and as which choice
        token, choice = torch.where(indices == e)
        out = out.index_add(0, token, expert(x[token]) * weights[token, choice, None])
    return out


def dense(
    experts: Expert, x: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Send every token to every expert."""
    num_experts = len(experts.w1)
    # (M, N) weights, 0 for experts that a token does not go to
    chosen = indices[..., None] == torch.arange(num_experts, device=x.device)
    gates = (chosen * weights[..., None]).sum(1)
    # (N, M, H)
    y = torch.baddbmm(experts.b1[:, None], x.expand(num_experts, -1, -1), experts.w1.mT).relu()
    # (N, M, E)
    y = torch.baddbmm(experts.b2[:, None], y, experts.w2.mT)
    if experts.scale is not None:
        y = nn.functional.layer_norm(y, y.shape[-1:])
        y = y * experts.scale[:, None] + experts.shift[:, None]
    return torch.einsum("mn,nme->me", gates, y)


DISPATCHES = {"eager": eager, "dense": dense}
