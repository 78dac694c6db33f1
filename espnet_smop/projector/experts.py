"""The experts: N two-layer MLPs of equal shape."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from espnet_smop.projector.options import check_positive_int, one_of

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu_,
    "gelu": nn.functional.gelu,
}
"""Activations of the experts' hidden layer; they may overwrite their input."""


class Expert(NamedTuple):
    """One expert's parameters, or those of all N experts with a leading dimension N.

    Attributes:
        w1: ``(H, D)``.
        b1: ``(H,)``.
        w2: ``(E, H)``.
        b2: ``(E,)``.
        scale: ``(E,)`` of the LayerNorm; None without one.
        shift: ``(E,)`` of the LayerNorm; None without one.
        activation: of the hidden layer, one of ``ACTIVATIONS``; the same for all N experts.
    """

    w1: torch.Tensor
    b1: torch.Tensor
    w2: torch.Tensor
    b2: torch.Tensor
    scale: torch.Tensor | None
    shift: torch.Tensor | None
    activation: str

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Project ``(M, D)`` to ``(M, E)`` with one expert."""
        y = self.activate(nn.functional.linear(x, self.w1, self.b1))
        y = nn.functional.linear(y, self.w2, self.b2)
        if self.scale is not None:
            y = nn.functional.layer_norm(y, y.shape[-1:], self.scale, self.shift)
        return y

    def activate(self, y: torch.Tensor) -> torch.Tensor:
        """Apply the activation to the hidden layer ``(..., H)``, which may be overwritten."""
        return ACTIVATIONS[self.activation](y)

    def unbind(self) -> list["Expert"]:
        """Split N stacked experts.

        One ``unbind`` per parameter: if they were indexed expert by expert, the backward pass would
        write a gradient of the size of all experts for each expert.
        """
        *params, activation = self
        columns = [[None] * len(self.w1) if p is None else p.unbind() for p in params]
        return [Expert(*row, activation) for row in zip(*columns, strict=True)]


class ExpertPool(nn.Module):
    """N experts Linear → activation → Linear (→ LayerNorm).

    The parameters of all experts are stacked: the optimizer sees six tensors, a grouped matrix
    product takes them as they are, and each has a gradient in every step even if an expert gets no
    token (so DDP needs no ``unused_parameters``). Each expert is initialised like ``nn.Linear`` and
    ``nn.LayerNorm``. ``dispatch.py`` sends tokens to the experts.

    Args:
        input_size: token width D.
        hidden_size: H.
        output_size: E.
        num_experts: N.
        layer_norm: end each expert with a LayerNorm, as in published Llama-SMoP checkpoints.
        activation: ``relu``, or ``gelu`` (exact).
    """

    def __init__(
        self,
        *,
        input_size: int,
        hidden_size: int,
        output_size: int,
        num_experts: int,
        layer_norm: bool = True,
        activation: str = "relu",
    ):
        super().__init__()
        self.activation = one_of("the experts' activation", activation, ACTIVATIONS)
        self.num_experts = n = check_positive_int("num_experts", num_experts)
        check_positive_int("hidden_size", hidden_size)
        self.w1 = nn.Parameter(torch.empty(n, hidden_size, input_size))
        self.b1 = nn.Parameter(torch.empty(n, hidden_size))
        self.w2 = nn.Parameter(torch.empty(n, output_size, hidden_size))
        self.b2 = nn.Parameter(torch.empty(n, output_size))
        self.scale = nn.Parameter(torch.ones(n, output_size)) if layer_norm else None
        self.shift = nn.Parameter(torch.zeros(n, output_size)) if layer_norm else None
        for weight, bias in ((self.w1, self.b1), (self.w2, self.b2)):
            bound = 1 / math.sqrt(weight.shape[-1])
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    @torch.no_grad()
    def init_output_rms(self, rms: torch.Tensor) -> None:
        """Scale the initial weights so that tokens have about this root mean square.

        Exact with the LayerNorm. Without it, it holds for inputs of unit variance.
        """
        if self.scale is not None:
            self.scale.copy_(rms.expand_as(self.scale))
            return
        # At initialisation, Linear, ReLU and Linear leave 1/3 · 1/2 · 1/3 of a unit variance.
        for last in (self.w2, self.b2):
            last.mul_(rms * math.sqrt(18))

    def stacked(self, dtype: torch.dtype) -> Expert:
        """Return all experts' parameters in ``dtype``."""
        params = (self.w1, self.b1, self.w2, self.b2, self.scale, self.shift)
        params = (None if p is None else p.to(dtype) for p in params)
        return Expert(*params, self.activation)
