"""How tokens get to their experts and back.

All dispatches compute the same sums, ``Σ_k weights[:, k] · E_indices[:, k](x)``, and the same
gradients:

- ``eager``: expert by expert; the reference to read.
- ``dense``: every expert takes every token, and the experts that a token did not choose get
  weight 0. N / K times the work, but all shapes are static, as ``torch.compile`` needs them.
- ``grouped``: tokens sorted by expert, so that each layer is one ``grouped_mm`` and the host never
  waits for the GPU to count tokens. Falls back to ``eager`` where ``grouped_mm`` does not apply.
- ``auto``: see ``choose``.
"""

import torch
from torch import nn

from espnet_smop.projector.experts import Expert, ExpertPool
from espnet_smop.projector.options import one_of
from espnet_smop.projector.router import Routing


def mix(
    pool: ExpertPool, x: torch.Tensor, routing: Routing | None, *, how: str = "auto"
) -> torch.Tensor:
    """Return the weighted sum of the outputs of the experts that each token goes to.

    Runs in autocast's precision if autocast is enabled, otherwise in that of the parameters.

    Args:
        pool: the experts.
        x: ``(M, D)`` tokens.
        routing: where tokens go; None sends each of them to all experts, with weight 1.
        how: ``auto``, ``eager``, ``dense`` or ``grouped``.

    Returns:
        ``(M, E)``; zeros for tokens without an expert.

    Raises:
        ValueError: there is no dispatch called ``how``.
    """
    one_of("dispatch", how, ("auto", *DISPATCHES))
    device = x.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else pool.w1.dtype
    with torch.autocast(device, enabled=False):
        x, experts = x.to(dtype), pool.stacked(dtype)
        if routing is None:
            first, *others = experts.unbind()
            return sum((expert(x) for expert in others), start=first(x))
        if how == "auto":
            how = choose(experts)
        return DISPATCHES[how](experts, x, routing.indices, routing.weights.to(dtype))


def choose(experts: Expert) -> str:
    """Return the dispatch that ``auto`` selects.

    On a CPU it is ``eager``, which is as fast as ``grouped`` for batches of thousands of tokens
    (``benchmarks/projector.py``). On a GPU it is ``grouped`` where that applies, because ``eager``
    makes the host wait for each expert's number of tokens; no GPU was measured. Compiled code needs
    the static shapes of ``dense``.
    """
    if torch.compiler.is_compiling():
        return "dense"
    return "grouped" if experts.w1.is_cuda and grouped_mm_applies(experts) else "eager"


def eager(
    experts: Expert, x: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Run the experts one by one, and add their weighted outputs.

    Args:
        experts: all N, stacked.
        x: ``(M, D)`` tokens.
        indices: ``(M, K)`` each token's experts; N for padding.
        weights: ``(M, K)`` of the experts' outputs; 0 for padding.

    Returns:
        ``(M, E)``.
    """
    out = x.new_zeros(len(x), experts.w2.shape[1])
    for e, expert in enumerate(experts.unbind()):
        # (m,) tokens that chose this expert, and as which choice
        token, choice = torch.where(indices == e)
        out = out.index_add(0, token, expert(x[token]) * weights[token, choice, None])
    return out


def dense(
    experts: Expert, x: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Send every token to every expert; see ``eager``."""
    num_experts = len(experts.w1)
    # (M, N) weights, 0 for experts that a token does not go to
    chosen = indices[..., None] == torch.arange(num_experts, device=x.device)
    gates = (chosen * weights[..., None]).sum(1)
    # (N, M, H)
    y = torch.baddbmm(experts.b1[:, None], x.expand(num_experts, -1, -1), experts.w1.mT)
    y = experts.activate(y)
    # (N, M, E)
    y = torch.baddbmm(experts.b2[:, None], y, experts.w2.mT)
    if experts.scale is not None:
        y = nn.functional.layer_norm(y, y.shape[-1:])
        y = y * experts.scale[:, None] + experts.shift[:, None]
    return torch.einsum("mn,nme->me", gates, y)


def grouped(
    experts: Expert, x: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Sort tokens by expert, so that each expert has one block of rows; see ``eager``."""
    if not grouped_mm_applies(experts):
        return eager(experts, x, indices, weights)
    (_, top_k), num_experts = indices.shape, len(experts.w1)
    # Rows after the last block would be uninitialised memory. Padding therefore goes to the last
    # expert, where its weight of 0 keeps it out of sums and gradients.
    experts_of_rows, order = indices.clamp(max=num_experts - 1).flatten().sort(stable=True)
    # (M · K, N)
    one_hot = experts_of_rows[:, None] == torch.arange(num_experts, device=x.device)
    # (N,) where each expert's rows end
    ends = one_hot.sum(0).cumsum(0).to(torch.int32)
    # As a matrix product, a sum over rows, as in the gradient, always adds in the same order.
    one_hot = one_hot.to(x.dtype)
    # (M · K, H)
    y = nn.functional.grouped_mm(x[order // top_k], experts.w1.mT, offs=ends)
    y = experts.activate(torch.addmm(y, one_hot, experts.b1))
    # (M · K, E)
    y = nn.functional.grouped_mm(y, experts.w2.mT, offs=ends)
    y = torch.addmm(y, one_hot, experts.b2)
    if experts.scale is not None:
        y = nn.functional.layer_norm(y, y.shape[-1:])
        y = y * (one_hot @ experts.scale) + one_hot @ experts.shift
    # (M, K, E) back in the order of the tokens
    y = y[order.argsort()].unflatten(0, indices.shape)
    return torch.einsum("mk,mke->me", weights, y)


def grouped_mm_applies(experts: Expert) -> bool:
    """Return whether ``grouped_mm`` and its gradient support these experts.

    It requires rows aligned to 16 bytes, and on a GPU bfloat16. Blackwell and later are excluded:
    there the gradients of an expert without tokens were reported to be uninitialised memory
    (PyTorch issue 172439).
    """
    w1, w2 = experts.w1, experts.w2
    if any(size * w1.element_size() % 16 for size in (*w1.shape[1:], *w2.shape[1:])):
        return False
    if w1.is_cuda:
        generation, _ = torch.cuda.get_device_capability(w1.device)
        return w1.dtype == torch.bfloat16 and generation < _BLACKWELL
    return w1.dtype in (torch.float32, torch.bfloat16, torch.float16)


_BLACKWELL = 10
"""Major compute capability of B200."""


DISPATCHES = {"eager": eager, "dense": dense, "grouped": grouped}
