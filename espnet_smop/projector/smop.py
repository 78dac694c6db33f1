"""Sparse mixtures of projectors in three routings (Llama-SMoP, arXiv 2505.14336, Fig. 2)."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from espnet_smop.modality import MODALITIES
from espnet_smop.projector.abs_projector import AbsProjector, ProjectorOutput, Routings
from espnet_smop.projector.dispatch import DISPATCHES, mix
from espnet_smop.projector.downsample import valid_mask
from espnet_smop.projector.experts import ExpertPool
from espnet_smop.projector.options import check_not_negative, complete, one_of
from espnet_smop.projector.per_rate import MixturePerRate
from espnet_smop.projector.router import (
    NoRouter,
    Router,
    Routing,
    auxiliary_losses,
    expert_shares,
)
from espnet_smop.projector.stem import DOWNSAMPLE_DEFAULTS, Stem

Tokens = dict[str, torch.Tensor]
"""Modality → one row per token of the batch."""


class Parts(NamedTuple):
    """The building blocks of the three routings.

    Attributes:
        router: builds a router from a token width and a number of experts.
        pool: builds an expert pool from the same.
        mix: sends tokens through a pool, ``mix(pool, x, routing)``.
    """

    router: Callable[[int, int], nn.Module]
    pool: Callable[[int, int], ExpertPool]
    mix: Callable[[ExpertPool, torch.Tensor, Routing | None], torch.Tensor]


class JEJR(nn.Module):
    """Joint experts, joint router: one SMoP for the concatenated audio and video tokens."""

    joint_experts = True

    def __init__(self, sizes: dict[str, int], num_experts: dict[str, int], parts: Parts):
        super().__init__()
        self.align = Align(sizes)
        n = shared_pool_size(num_experts)
        self.router = parts.router(self.align.output_size, n)
        self.pool = parts.pool(self.align.output_size, n)
        self.mix = parts.mix

    def forward(self, x: Tokens, valid: Tokens) -> tuple[Tokens, Routings]:
        """Project tokens ``(M, D)`` to ``(M, E)``."""
        x = self.align(x)
        routing = self.router(concat_tokens(x), concat_tokens(valid))
        y = self.mix(self.pool, concat_tokens(x), routing)
        return split_by_modality(y, like=x), {"joint": split_by_modality(routing, like=x)}


class JEDR(nn.Module):
    """Joint experts, disjoint routers: a router per modality, one shared pool."""

    joint_experts = True

    def __init__(self, sizes: dict[str, int], num_experts: dict[str, int], parts: Parts):
        super().__init__()
        self.align = Align(sizes)
        n = shared_pool_size(num_experts)
        self.routers = nn.ModuleDict({m: parts.router(self.align.output_size, n) for m in sizes})
        self.pool = parts.pool(self.align.output_size, n)
        self.mix = parts.mix

    def forward(self, x: Tokens, valid: Tokens) -> tuple[Tokens, Routings]:
        """Project tokens ``(M, D)`` to ``(M, E)``."""
        x = self.align(x)
        routings = {m: self.routers[m](x[m], valid[m]) for m in x}
        y = self.mix(self.pool, concat_tokens(x), concat_routings(routings))
        return split_by_modality(y, like=x), {m: {m: routings[m]} for m in x}


class DEDR(nn.Module):
    """Disjoint experts, disjoint routers: a separate SMoP per modality."""

    joint_experts = False

    def __init__(self, sizes: dict[str, int], num_experts: dict[str, int], parts: Parts):
        super().__init__()
        self.routers = nn.ModuleDict({m: parts.router(sizes[m], num_experts[m]) for m in sizes})
        self.pools = nn.ModuleDict({m: parts.pool(sizes[m], num_experts[m]) for m in sizes})
        self.mix = parts.mix

    def forward(self, x: Tokens, valid: Tokens) -> tuple[Tokens, Routings]:
        """Project tokens ``(M, D)`` to ``(M, E)``."""
        routings = {m: self.routers[m](x[m], valid[m]) for m in x}
        y = {m: self.mix(self.pools[m], x[m], routings[m]) for m in x}
        return y, {m: {m: routings[m]} for m in x}


ROUTINGS = {"jejr": JEJR, "jedr": JEDR, "dedr": DEDR}


class Align(nn.Module):
    """Projects the narrower modality to the other's width with a linear layer.

    If the widths are equal, there is no layer.
    """

    def __init__(self, sizes: dict[str, int]):
        super().__init__()
        self.output_size = max(sizes.values())
        self.linears = nn.ModuleDict(
            {m: nn.Linear(d, self.output_size) for m, d in sizes.items() if d != self.output_size}
        )

    def forward(self, x: Tokens) -> Tokens:
        """Widen tokens ``(M, D)``."""
        return {m: self.linears[m](t) if m in self.linears else t for m, t in x.items()}


def shared_pool_size(num_experts: dict[str, int]) -> int:
    """Return the number of experts of a pool that modalities share.

    Raises:
        ValueError: the modalities' numbers differ.
    """
    if len(set(num_experts.values())) > 1:
        raise ValueError(
            f"num_experts is {num_experts}, but joint experts are one pool: give one number, or "
            "set routing: dedr for a pool per modality"
        )
    return next(iter(num_experts.values()))


def concat_tokens(tokens: Tokens) -> torch.Tensor:
    """Concatenate the modalities' rows, for example tokens or their validity."""
    return torch.cat(list(tokens.values()))


def concat_routings(routings: dict[str, Routing | None]) -> Routing | None:
    """Concatenate the modalities' routings; None if there are no routers."""
    if any(routing is None for routing in routings.values()):
        return None  # the shared pool has a single expert
    return Routing.cat(routings.values())


def split_by_modality(whole: torch.Tensor | Routing | None, *, like: Tokens) -> dict:
    """Undo ``concat_tokens`` or ``concat_routings``; ``like`` has the rows of each modality."""
    if whole is None:
        return dict.fromkeys(like)
    return dict(zip(like, whole.split([len(t) for t in like.values()]), strict=True))


class SMoPProjector(AbsProjector):
    """Encoder features → fusion → downsampling → experts chosen token by token → LLM tokens.

    Args:
        input_sizes: modality → width of the encoder's features.
        output_size: width E of the LLM's embeddings.
        num_layers: modality → number of encoder layers.
        routing: ``jejr``, ``jedr`` or ``dedr``; with one modality they are the same.
        num_experts: N of each pool, or for ``dedr`` modality → N. One expert is a plain MLP
            without a router, so ``{audio: 1, video: 4}`` is a dense projector beside a sparse one.
        top_k: K, experts per token.
        normalize_top_k: scale the K weights to sum to 1, as in published checkpoints; False is
            the paper's equation.
        hidden_size: width of the experts' hidden layer.
        expert_layer_norm: end experts with a LayerNorm, as in published checkpoints; False is the
            paper's two-layer MLP.
        downsample: see ``Stem``; a partial dictionary is completed with the defaults.
        per_rate: a mixture for each rate (see ``MixturePerRate``); by default one for all rates.
        fusion: see ``Stem``.
        dropout: on the inputs of routers and experts, for training sets so small that the experts
            would memorise them. The paper has none.
        load_balancing_weight: weight of each router's load-balancing loss.
        router_z_weight: weight of each router's z-loss.
        dispatch: see ``dispatch.py``; values other than ``auto`` are for measurements.
    """

    def __init__(
        self,
        input_sizes: dict[str, int],
        output_size: int,
        num_layers: dict[str, int],
        *,
        routing: str = "dedr",
        num_experts: int | dict[str, int] = 3,
        top_k: int = 2,
        normalize_top_k: bool = True,
        hidden_size: int = 2048,
        expert_layer_norm: bool = True,
        downsample: dict | None = DOWNSAMPLE_DEFAULTS,
        per_rate: bool = False,
        fusion: dict | None = None,
        dropout: float = 0.0,
        load_balancing_weight: float = 0.01,
        router_z_weight: float = 0.001,
        dispatch: str = "auto",
    ):
        super().__init__()
        one_of("routing", routing, ROUTINGS)
        one_of("dispatch", dispatch, ("auto", *DISPATCHES))
        if isinstance(num_experts, Mapping):
            num_experts = complete("num_experts", num_experts, dict.fromkeys(MODALITIES, 3))
        else:
            num_experts = dict.fromkeys(MODALITIES, num_experts)
        self.load_balancing_weight = check_not_negative(
            "load_balancing_weight", load_balancing_weight
        )
        self.router_z_weight = check_not_negative("router_z_weight", router_z_weight)
        self.stem = Stem(
            input_sizes=input_sizes, num_layers=num_layers, downsample=downsample, fusion=fusion
        )
        self.needs_layers = frozenset(self.stem.fusions)
        self.dropout = nn.Dropout(dropout)

        def router(size: int, n: int) -> nn.Module:
            if n == 1:
                return NoRouter()
            return Router(input_size=size, num_experts=n, top_k=top_k, normalize=normalize_top_k)

        def pool(size: int, n: int) -> ExpertPool:
            return ExpertPool(
                input_size=size,
                hidden_size=hidden_size,
                output_size=output_size,
                num_experts=n,
                layer_norm=expert_layer_norm,
            )

        def mixture(sizes: dict[str, int]) -> nn.Module:
            return ROUTINGS[routing](
                sizes,
                {m: num_experts[m] for m in sizes},
                Parts(router, pool, partial(mix, how=dispatch)),
            )

        self.rates = self.stem.rates
        self.per_rate = per_rate
        if per_rate and not self.rates:
            raise ValueError("per_rate is true, but downsample has no list of rates: give one")
        if per_rate:
            joint = ROUTINGS[routing].joint_experts
            self.mixture = MixturePerRate(self.stem.output_sizes, mixture, joint=joint)
        else:
            self.mixture = mixture(
                {m: _one_size(m, sizes) for m, sizes in self.stem.output_sizes.items()}
            )

    def init_output_rms(self, rms: torch.Tensor) -> None:
        """See ``AbsProjector``."""
        for module in self.mixture.modules():
            if isinstance(module, ExpertPool):
                module.init_output_rms(rms)

    def forward(
        self,
        features: dict[str, torch.Tensor],
        lengths: dict[str, torch.Tensor],
        layers: dict[str, list[torch.Tensor]] | None = None,
        rates: Mapping[str, int] | None = None,
    ) -> ProjectorOutput:
        """Project the features of one or all modalities; see ``AbsProjector``.

        In training under ``torch.distributed`` the auxiliary losses are those of the global batch.
        A modality without an entry in ``rates`` uses its first rate.
        """
        rates = {m: rate[0] for m, rate in self.rates.items()} | dict(rates or {})
        features = {m: self._own_precision(x) for m, x in features.items()}
        layers = {m: [self._own_precision(x) for x in xs] for m, xs in (layers or {}).items()}
        tokens, lengths = self.stem(features, lengths, layers, rates)
        valid = {m: valid_mask(lengths[m], tokens[m].shape[1]) for m in tokens}
        mixture = partial(self.mixture, rates=rates) if self.per_rate else self.mixture
        y, routings = mixture(
            {m: self.dropout(t).flatten(0, 1) for m, t in tokens.items()},
            {m: v.flatten() for m, v in valid.items()},
        )
        y = {m: torch.where(valid[m][..., None], y[m].unflatten(0, valid[m].shape), 0) for m in y}
        balance, z, shares = self._router_losses(routings, y)
        return ProjectorOutput(
            tokens=y,
            lengths=lengths,
            aux_loss=self.load_balancing_weight * balance + self.router_z_weight * z,
            stats={"loss_balance": balance.detach(), "loss_z": z.detach(), **shares},
            routings=routings,
        )

    def num_tokens(
        self, modality: str, frames: torch.Tensor, rate: int | None = None
    ) -> torch.Tensor:
        """See ``AbsProjector``; None is the first rate."""
        return self.stem.downsample(modality, rate).num_tokens(frames)

    def num_active_parameters(self) -> int:
        """See ``AbsProjector``."""
        others = self.mixture.of_other_rates() if self.per_rate else []
        idle = sum(p.numel() for mixture in others for p in mixture.parameters())
        modules = set(self.modules()).difference(*(mixture.modules() for mixture in others))
        routers = [module for module in modules if isinstance(module, Router)]
        pools = [module for module in modules if isinstance(module, ExpertPool)]
        top_k = routers[0].top_k if routers else 1
        idle += sum(
            (pool.num_experts - min(top_k, pool.num_experts))
            * sum(p.numel() for p in pool.parameters())
            // pool.num_experts
            for pool in pools
        )
        return super().num_active_parameters() - idle

    def _own_precision(self, x: torch.Tensor) -> torch.Tensor:
        """Convert features from the frozen encoder's dtype to that of the trained parameters."""
        if torch.is_autocast_enabled(x.device.type):
            return x
        return x.to(next(self.parameters()).dtype)

    def _router_losses(
        self, routings: Routings, y: Tokens
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        """Return the routers' load-balancing and z-losses, summed, and the experts' shares."""
        over_ranks = self.training and dist.is_available() and dist.is_initialized()
        balance = z = next(iter(y.values())).new_zeros((), dtype=torch.float32)
        shares = {}
        for name, by_modality in routings.items():
            used = {m: r for m, r in by_modality.items() if r is not None}
            if not used:
                continue
            router_balance, router_z = auxiliary_losses(used.values(), over_ranks=over_ranks)
            balance, z = balance + router_balance, z + router_z
            for modality, routing in used.items():
                for choice, share in expert_shares(routing).items():
                    shares[f"router_{name}/{modality}_{choice}"] = share
        return balance, z, shares


def _one_size(modality: str, sizes: dict[int, int]) -> int:
    """Return the token width that a modality has at all of its rates.

    Raises:
        ValueError: it has several.
    """
    if len(set(sizes.values())) > 1:
        listed = " and ".join(str(rate) for rate in sizes)
        raise ValueError(
            f"stacked {modality} frames have different widths at the rates {listed}: set "
            "per_rate: true for one projector each, or downsample.mode: avgpool"
        )
    return next(iter(sizes.values()))
