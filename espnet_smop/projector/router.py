"""The router, its auxiliary losses and its statistics."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from espnet_smop.projector.options import check_positive_int


@dataclass
class Routing:
    """The experts that M tokens are sent to.

    Padding is sent to none: its indices are N, one past the last expert, and its weights are 0.
    Shapes therefore do not depend on the lengths, and the host does not wait for a GPU.

    Attributes:
        logits: ``(M, N)``, at least float32.
        probs: ``(M, N)``, softmax of the logits.
        indices: ``(M, K)`` experts in order of decreasing probability; N for padding.
        weights: ``(M, K)`` their weights in the sum; 0 for padding.
        valid: ``(M,)`` True where the token is not padding.
    """

    logits: torch.Tensor
    probs: torch.Tensor
    indices: torch.Tensor
    weights: torch.Tensor
    valid: torch.Tensor

    def split(self, sizes: Sequence[int]) -> list["Routing"]:
        """Split along the tokens, the inverse of ``Routing.cat``."""
        return [
            Routing(*parts)
            for parts in zip(*(t.split(list(sizes)) for t in vars(self).values()), strict=True)
        ]

    @staticmethod
    def cat(routings: Iterable["Routing"]) -> "Routing":
        """Concatenate along the tokens."""
        columns = zip(*(vars(r).values() for r in routings), strict=True)
        return Routing(*(torch.cat(tensors) for tensors in columns))


class Router(nn.Module):
    """Linear router without bias: ``TopK(softmax(x W), K)`` (Llama-SMoP, Sec. 2.2).

    Logits and softmax are computed in float32 even under autocast, because rounding them to
    bfloat16 changes which experts are chosen (Switch Transformer, Sec. 2.4).

    Args:
        input_size: token width D.
        num_experts: N.
        top_k: K, experts per token, at most N.
        normalize: divide the K kept scores by their sum. Published checkpoints were trained with
            True; the paper's equation is False.

    Raises:
        ValueError: K is greater than N.
    """

    def __init__(self, *, input_size: int, num_experts: int, top_k: int, normalize: bool = True):
        super().__init__()
        check_positive_int("num_experts", num_experts)
        if check_positive_int("top_k", top_k) > num_experts:
            raise ValueError(
                f"top_k is {top_k}, but there are {num_experts} experts: "
                "lower top_k or raise num_experts"
            )
        self.num_experts = num_experts
        self.top_k = top_k
        self.normalize = normalize
        self.gate = nn.Linear(input_size, num_experts, bias=False)

    def forward(self, x: torch.Tensor, valid: torch.Tensor | None = None) -> Routing:
        """Route tokens.

        Args:
            x: ``(M, D)``.
            valid: ``(M,)`` False for padding; None if there is none.
        """
        if valid is None:
            valid = torch.ones(len(x), dtype=torch.bool, device=x.device)
        dtype = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            logits = nn.functional.linear(x.to(dtype), self.gate.weight.to(dtype))
        probs = logits.softmax(-1)
        weights, indices = probs.topk(self.top_k, dim=-1)
        if self.normalize:
            weights = weights / weights.sum(-1, keepdim=True)
        padding = ~valid[:, None]
        indices = indices.masked_fill(padding, self.num_experts)
        return Routing(logits, probs, indices, weights.masked_fill(padding, 0.0), valid)


class NoRouter(nn.Module):
    """The router of a single expert, without parameters or losses."""

    def forward(self, x: torch.Tensor, valid: torch.Tensor | None = None) -> None:
        """Return None: all tokens go to the only expert."""


class _SumOverRanks(torch.autograd.Function):
    """All-reduce with an all-reduced gradient."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


def auxiliary_losses(
    routings: Iterable[Routing], *, over_ranks: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a router's load-balancing loss and z-loss over its valid tokens.

    Load balancing is ``N · Σ_e f_e · P_e`` (Switch Transformer, Eq. 4), with ``f_e`` the share of
    tokens that have expert e among their K and ``P_e`` its mean softmax: K when balanced. The
    z-loss is the mean of ``logsumexp(logits)²`` (ST-MoE, Eq. 5). Without a valid token both are 0.

    Args:
        routings: the router's routings of this step, for example one per modality.
        over_ranks: first sum over the processes of ``torch.distributed``, all of which must call
            this. Only then is the loss that of the global batch, because a mean of products is not
            the product of means. Its gradient is summed over the ranks too, which under DDP's
            averaging, plain or by ESPnet's weights, gives the gradient of the global batch.
    """
    routings = list(routings)
    N = routings[0].probs.shape[-1]
    # (2N + 2,)
    packed = torch.stack([_packed_sums(routing, N) for routing in routings]).sum(0)
    if over_ranks:
        packed = _SumOverRanks.apply(packed)
    probs, counts, z, tokens = packed.split([N, N, 1, 1])
    tokens = tokens.detach().clamp(min=1)
    # (N,) each
    f = counts.detach() / tokens
    P = probs / tokens
    balance = N * (f * P).sum()
    return balance, (z / tokens).squeeze(0)


def _packed_sums(routing: Routing, num_experts: int) -> torch.Tensor:
    """Return sums over valid tokens, packed for one all-reduce.

    Without matrix products, which autocast would round.

    Returns:
        ``(2N + 2,)``: N sums of the softmax, N numbers of tokens that chose the expert, the sum of
        ``logsumexp(logits)²`` and the number of valid tokens.
    """
    valid = routing.valid.to(routing.probs.dtype)
    z = routing.logits.logsumexp(-1).square()
    return torch.cat(
        [
            (valid[:, None] * routing.probs).sum(0),
            _times_chosen(routing.indices, num_experts).sum(0).to(valid.dtype),
            (valid * z).sum()[None],
            valid.sum()[None],
        ]
    )


def _times_chosen(indices: torch.Tensor, num_experts: int) -> torch.Tensor:
    """Count how often each expert is the first, second, … choice, ``(K, N)``.

    Unlike ``bincount``, this does not make the host wait for a GPU.
    """
    return (indices[..., None] == torch.arange(num_experts, device=indices.device)).sum(0)


@torch.no_grad()
def expert_shares(routing: Routing) -> dict[str, torch.Tensor]:
    """Return each expert's share of tokens as first and as second choice.

    Returns:
        ``first_0`` … and, if K > 1, ``second_0`` …: scalar tensors on the tokens' device; zeros if
        there is no token.
    """
    num_experts = routing.probs.shape[-1]
    # (K, N)
    shares = _times_chosen(routing.indices[:, :2], num_experts) / routing.valid.sum().clamp(min=1)
    return {
        f"{choice}_{e}": share
        for choice, row in zip(("first", "second"), shares, strict=False)
        for e, share in enumerate(row)
    }
