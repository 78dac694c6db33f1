"""Mixtures of bottleneck adapters in the LLM's layers (MoME, arXiv 2510.04136).

They reuse the projector's router and experts, with other settings. Forward hooks add their outputs
to the frozen LLM's, whose modules and names do not change.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from espnet_smop.decoder.adapters import SHARED
from espnet_smop.projector.dispatch import mix
from espnet_smop.projector.experts import ExpertPool
from espnet_smop.projector.options import check_positive_int, complete, one_of
from espnet_smop.projector.router import Router, Routing, auxiliary_losses
from espnet_smop.views import View

MOME = {
    "num_experts": 23,
    "num_shared": 1,
    "top_k": 4,
    "bottleneck": 12,
    "place": "ffn",
    "router": "shared",
    "load_balancing_weight": 0.01,
}
"""The paper's settings."""


class MixtureOfAdapters(nn.Module):
    """``Σ_shared E(x) + Σ_top-k g · E(x)`` with ``E`` = Linear(D, b) → GELU → Linear(b, D).

    Its output is zero at first: the second matrices are zero, but the first are not, so that they
    learn. The public code zeroes both, which leaves no gradient.

    Args:
        size: token width D.
        num_experts: N, routed experts.
        num_shared: experts that every token goes to; may be 0.
        bottleneck: b.

    Attributes:
        routers: by name; `add_routers` makes them.
        current: name of the active one.
    """

    def __init__(self, size: int, *, num_experts: int, num_shared: int, bottleneck: int):
        super().__init__()
        self.size = size

        def pool(num: int) -> ExpertPool:
            experts = ExpertPool(
                input_size=size,
                hidden_size=bottleneck,
                output_size=size,
                num_experts=num,
                layer_norm=False,
                activation="gelu",
            )
            nn.init.zeros_(experts.w2)
            nn.init.zeros_(experts.b2)
            return experts

        self.routers = nn.ModuleDict()
        self.current = ""
        self.experts = pool(num_experts)
        self.shared = pool(num_shared) if num_shared else None

    def add_routers(self, top_k: Mapping[str, int]) -> None:
        """Add routers: name → K; the first one becomes active."""
        for name, k in top_k.items():
            self.routers[name] = Router(
                input_size=self.size, num_experts=self.experts.num_experts, top_k=k
            )
        self.current = next(iter(top_k))

    def choose(self, router: str, top_k: int) -> None:
        """Use this router from now on, with K experts."""
        self.current = router
        self.routers[router].top_k = top_k

    def forward(
        self, x: torch.Tensor, valid: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Routing]:
        """Mix the experts' outputs.

        Args:
            x: ``(B, T, D)``.
            valid: ``(B, T)``, False for padding, which is sent to no expert; None if there is none.

        Returns:
            ``(B, T, D)`` in the dtype of ``x``, and the routing of the ``B · T`` tokens.
        """
        tokens = x.flatten(0, 1)
        routing = self.routers[self.current](tokens, None if valid is None else valid.flatten())
        y = mix(self.experts, tokens, routing)
        if self.shared is not None:
            y = y + mix(self.shared, tokens, None)
        return y.view_as(x).to(x.dtype), routing


_PASS: ContextVar[tuple[torch.Tensor, list[Routing]] | None] = ContextVar("_PASS", default=None)
"""Within `MoME.recording`: valid tokens ``(B, T)``, and the routings of the layers so far."""


class MoME(nn.Module):
    """A `MixtureOfAdapters` in each layer of an LLM.

    Args:
        layers: of a Llama-like LLM; hooks are registered in them.
        size: their width.
        num_experts: N, routed experts of each layer.
        num_shared: further experts of each layer that every token goes to.
        top_k: K, experts per token; or with several rates ``View.rates_tag`` → K, such as
            ``{a4_v2: 4, a16_v5: 1}``.
        bottleneck: inner width of the experts.
        place: ``mhsa`` (takes attention's input, and is added to its output), ``ffn`` (the same
            for the MLP) or ``layer`` (takes attention's input, and is added to the layer's
            output).
        router: ``shared`` by all rates, or ``per_rate``: one for each.
        load_balancing_weight: weight of the load-balancing loss over the routings of all layers.

    Raises:
        ValueError: a setting is out of its range, or the layers are not Llama-like.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        size: int,
        *,
        num_experts: int,
        num_shared: int,
        top_k: int | Mapping[str, int],
        bottleneck: int,
        place: str,
        router: str,
        load_balancing_weight: float,
    ):
        super().__init__()
        one_of("mome.place", place, PLACES)
        one_of("mome.router", router, (SHARED, "per_rate"))
        check_positive_int("mome.num_experts", num_experts)
        check_positive_int("mome.bottleneck", bottleneck)
        if num_shared != 0:
            check_positive_int("mome.num_shared", num_shared)
        self.top_k = top_k
        self.router_per_rate = router == "per_rate"
        self.load_balancing_weight = load_balancing_weight
        self.layers = nn.ModuleList(
            MixtureOfAdapters(
                size, num_experts=num_experts, num_shared=num_shared, bottleneck=bottleneck
            )
            for _ in layers
        )
        if not self.router_per_rate:
            most = max(top_k.values()) if isinstance(top_k, Mapping) else top_k
            for mixture in self.layers:
                mixture.add_routers({SHARED: most})
        for mixture, layer in zip(self.layers, layers, strict=True):
            PLACES[place](layer, mixture)

    @classmethod
    def of(cls, conf: Mapping[str, Any], layers: Sequence[nn.Module], size: int) -> "MoME":
        """Build from ``decoder_conf.mome``, completed with the defaults in ``MOME``."""
        return cls(layers, size, **complete("mome", conf, MOME))

    @property
    def needs_view(self) -> bool:
        """Whether rates differ in router or K."""
        return self.router_per_rate or isinstance(self.top_k, Mapping)

    def prepare(self, views: Sequence[View]) -> None:
        """Add the routers of these views' rates; see ``ViewAdapters``.

        Raises:
            ValueError: ``top_k`` lacks a rate or has one that the model does not have.
        """
        tags = list(dict.fromkeys(view.rates_tag for view in views))
        if isinstance(self.top_k, Mapping) and set(self.top_k) != set(tags):
            raise ValueError(
                f"mome.top_k is for the rates {', '.join(map(str, self.top_k))}, but the model has "
                f"{', '.join(tags) or 'a single rate'}"
            )
        if self.router_per_rate:
            if tags == [""]:
                raise ValueError(
                    "mome.router is 'per_rate', but the projector has a single rate: give "
                    "projector_conf.downsample lists of rates, or set router: shared"
                )
            for mixture in self.layers:
                mixture.add_routers({tag: self._top_k(tag) for tag in tags})

    def activate(self, view: View | None) -> None:
        """Use the router and K of a view's rates from now on; see ``ViewAdapters``."""
        if view is not None and self.needs_view:
            tag = view.rates_tag
            for mixture in self.layers:
                mixture.choose(tag if self.router_per_rate else SHARED, self._top_k(tag))

    def _top_k(self, tag: str) -> int:
        return self.top_k[tag] if isinstance(self.top_k, Mapping) else self.top_k

    @contextlib.contextmanager
    def recording(self, valid: torch.Tensor) -> Iterator[list[Routing]]:
        """Yield a list that the LLM's layers fill with routings as they run in this context.

        Args:
            valid: ``(B, T)``, False for padding, which is sent to no expert.
        """
        routings: list[Routing] = []
        token = _PASS.set((valid, routings))
        try:
            yield routings
        finally:
            _PASS.reset(token)

    def balance(self, routings: Sequence[Routing]) -> torch.Tensor:
        """Return the load-balancing loss over the tokens of all layers together, a scalar.

        In training under ``torch.distributed`` it is that of the global batch.
        """
        over_ranks = self.training and dist.is_available() and dist.is_initialized()
        balance, _ = auxiliary_losses(routings, over_ranks=over_ranks)
        return balance


# Never compiled: which experts get a token changes from batch to batch.
@torch.compiler.disable
def _mixed(mixture: MixtureOfAdapters, x: torch.Tensor) -> torch.Tensor:
    valid, routings = _PASS.get() or (None, [])
    y, routing = mixture(x, valid)
    routings.append(routing)
    return y


def _beside_attention(layer: nn.Module, mixture: MixtureOfAdapters) -> None:
    def hook(mixture: MixtureOfAdapters, module: nn.Module, args: Any, kwargs: Any, output: Any):
        x = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        return output[0] + _mixed(mixture, x), *output[1:]

    _part(layer, "self_attn").register_forward_hook(partial(hook, mixture), with_kwargs=True)


def _beside_mlp(layer: nn.Module, mixture: MixtureOfAdapters) -> None:
    def hook(mixture: MixtureOfAdapters, module: nn.Module, args: Any, output: torch.Tensor):
        return output + _mixed(mixture, args[0])

    _part(layer, "mlp").register_forward_hook(partial(hook, mixture))


def _around_layer(layer: nn.Module, mixture: MixtureOfAdapters) -> None:
    def hook(mixture: MixtureOfAdapters, module: nn.Module, args: Any, output: torch.Tensor):
        return output + _mixed(mixture, module.input_layernorm(args[0]))

    _part(layer, "input_layernorm")
    layer.register_forward_hook(partial(hook, mixture))


PLACES: dict[str, Callable[[nn.Module, MixtureOfAdapters], None]] = {
    "mhsa": _beside_attention,
    "ffn": _beside_mlp,
    "layer": _around_layer,
}


def _part(layer: nn.Module, name: str) -> nn.Module:
    if not hasattr(layer, name):
        raise ValueError(
            f"mome: the LLM's {type(layer).__name__} has no '{name}'. Use a Llama-like LLM"
        )
    return getattr(layer, name)
