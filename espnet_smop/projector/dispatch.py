"""How tokens get to their experts and back.

All ways give the same sums, ``Σ_k weights[:, k] · E_indices[:, k](x)``, and the same gradients:

- ``eager``: expert by expert; the reference to read.
- ``dense``: every expert takes every token, what was not chosen counts 0. N / K times the work, but
  a few large operations of static shapes: for few tokens on a GPU, and for ``torch.compile``.
- ``grouped``: tokens sorted by expert, so that each layer is one grouped matrix product on a
  Hopper GPU, without waiting for it, and a product per expert where there is no fast one.
- ``auto``: the fastest of these by the rules of ``choose``.
"""

from dataclasses import dataclass

import torch
from torch import nn

from espnet_smop.projector.experts import Expert, ExpertPool
from espnet_smop.projector.options import one_of
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
            how = choose(device, pool.num_experts, len(x))
        return DISPATCHES[how](experts, x, routing.indices, routing.weights.to(dtype))


def choose(device: str, num_experts: int, tokens: int) -> str:
    """Return the fastest dispatch for this many tokens; see ``benchmarks/projector.py``.

    On a CPU work is all that counts, and ``grouped`` does the least. On a GPU few tokens cost less
    than starting kernels does, and then ``dense`` starts the fewest. What is compiled needs static
    shapes, which is ``dense`` again.
    """
    if torch.compiler.is_compiling():
        return "dense"
    if device == "cuda" and tokens * num_experts <= _FEW_ROWS:
        return "dense"
    return "grouped"


_HOPPER = 9
"""Major compute capability of H100 and H200."""

_FEW_ROWS = 4096
"""Tokens times experts up to which ``dense`` is faster on a GPU."""


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


def grouped(
    experts: Expert, x: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Sort tokens by expert, so that each expert has one block of rows."""
    groups = Groups.of(indices, experts)
    y = _Spread.apply(x, groups)
    y = _GroupedLinear.apply(y, experts.w1, experts.b1, groups).relu_()
    y = _GroupedLinear.apply(y, experts.w2, experts.b2, groups)
    if experts.scale is not None:
        y = nn.functional.layer_norm(y, y.shape[-1:])
        y = y * (groups.one_hot @ experts.scale) + groups.one_hot @ experts.shift
    return _Collect.apply(y, weights, groups)


@dataclass
class Groups:
    """The M · K pairs of token and expert, sorted by expert: one row each.

    Attributes:
        tokens: ``(M · K,)`` each row's token.
        order: ``(M · K,)`` each row's place in the flattened ``indices``.
        rows: ``(M, K)`` the row of each place.
        one_hot: ``(M · K, N)`` each row's expert, 0 everywhere for padding.
        ends: where each expert's rows end: int32 ``(N,)`` for ``grouped_mm``, which reads it on the
            GPU; else a list. Rows of padding come after the last end.
    """

    tokens: torch.Tensor
    order: torch.Tensor
    rows: torch.Tensor
    one_hot: torch.Tensor
    ends: torch.Tensor | list[int]

    @classmethod
    def of(cls, indices: torch.Tensor, experts: Expert) -> "Groups":
        """Sort ``indices`` ``(M, K)``."""
        num_experts = len(experts.w1)
        on_device = _grouped_mm_fits(experts)
        if on_device:
            # What grouped_mm leaves beyond the last end is anything, perhaps NaN. To let the last
            # expert have the padding, at weight 0, is cheaper than to clear it in each tensor.
            indices = indices.clamp(max=num_experts - 1)
        # Few bits make few passes of the sort.
        sorted_experts, order = indices.flatten().to(torch.int16).sort(stable=True)
        places = torch.arange(indices.numel(), device=indices.device)
        rows = torch.empty_like(order).scatter_(0, order, places).view_as(indices)
        chosen = sorted_experts[:, None] == torch.arange(num_experts, device=indices.device)
        ends = chosen.sum(0).cumsum(0)
        return cls(
            tokens=order // indices.shape[1],
            order=order,
            rows=rows,
            one_hot=chosen.to(experts.w1.dtype),
            ends=ends.to(torch.int32) if on_device else ends.tolist(),
        )

    def slices(self) -> list[slice]:
        """Return each expert's rows."""
        return [slice(a, b) for a, b in zip([0, *self.ends[:-1]], self.ends, strict=True)]


def _grouped_mm_fits(experts: Expert) -> bool:
    """Whether ``grouped_mm`` runs, and runs fast, on these experts.

    On a CPU it takes twice the time of one product per expert. Its GPU kernel, which Hopper has,
    takes bfloat16 and rows that begin at multiples of 16 bytes; elsewhere PyTorch waits for the
    GPU and goes from group to group as well. On Blackwell the gradients of an expert without tokens
    may be anything (PyTorch issue 172439).
    """
    return (
        hasattr(nn.functional, "grouped_mm")
        and experts.w1.is_cuda
        and experts.w1.dtype == torch.bfloat16
        and torch.cuda.get_device_capability(experts.w1.device)[0] == _HOPPER
        and all(size % 8 == 0 for size in (*experts.w1.shape[1:], *experts.w2.shape[1:]))
    )


class _Spread(torch.autograd.Function):
    """Copy tokens ``(M, D)`` to their rows ``(M · K, D)``.

    Unlike that of indexing, the gradient needs no atomic sums: the rows of each token are known.
    """

    @staticmethod
    def forward(ctx, x, groups):
        ctx.groups = groups
        return x.index_select(0, groups.tokens)

    @staticmethod
    def backward(ctx, grad):
        return nn.functional.embedding_bag(ctx.groups.rows, grad, mode="sum"), None


class _Collect(torch.autograd.Function):
    """Sum for each token ``(M, E)`` its rows ``(M · K, E)``, weighted by ``(M, K)``."""

    @staticmethod
    def forward(ctx, y, weights, groups):
        ctx.save_for_backward(y, weights)
        ctx.groups = groups
        return nn.functional.embedding_bag(groups.rows, y, mode="sum", per_sample_weights=weights)

    @staticmethod
    def backward(ctx, grad):
        y, weights = ctx.saved_tensors
        groups = ctx.groups
        grad = grad.index_select(0, groups.tokens)
        grad_weights = (grad * y).sum(-1)[groups.rows]
        return grad.mul_(weights.flatten()[groups.order, None]), grad_weights, None


class _GroupedLinear(torch.autograd.Function):
    """A linear layer per group, ``(M · K, D)`` to ``(M · K, H)``.

    It writes the gradients of all groups into one tensor, where autograd would make one for each
    and copy them together.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, groups):
        ctx.save_for_backward(x, weight)
        ctx.groups = groups
        if isinstance(groups.ends, torch.Tensor):
            y = nn.functional.grouped_mm(x, weight.mT, offs=groups.ends)
            return y.addmm_(groups.one_hot, bias)
        y = x.new_empty(len(x), weight.shape[1])
        y[groups.ends[-1] :] = 0
        for rows, w, b in zip(groups.slices(), weight, bias, strict=True):
            torch.addmm(b, x[rows], w.T, out=y[rows])
        return y

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        groups = ctx.groups
        # A gradient of stride 0, as a sum has, is not for grouped_mm.
        grad = grad.contiguous()
        grad_x = None
        wanted = ctx.needs_input_grad[0]  # not by features of a frozen encoder
        if isinstance(groups.ends, torch.Tensor):
            grad_weight = nn.functional.grouped_mm(grad.T, x, offs=groups.ends)
            if wanted:
                grad_x = nn.functional.grouped_mm(grad, weight, offs=groups.ends)
        else:
            grad_weight = torch.empty_like(weight)
            for rows, grad_w in zip(groups.slices(), grad_weight, strict=True):
                torch.mm(grad[rows].T, x[rows], out=grad_w)
            if wanted:
                grad_x = torch.empty_like(x)
                grad_x[groups.ends[-1] :] = 0
                for rows, w in zip(groups.slices(), weight, strict=True):
                    torch.mm(grad[rows], w, out=grad_x[rows])
        return grad_x, grad_weight, groups.one_hot.T @ grad, None


DISPATCHES = {"eager": eager, "dense": dense, "grouped": grouped}
