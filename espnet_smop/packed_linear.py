"""Frozen linear layers of base models on CPUs: weights packed once for oneDNN's kernels.

``nn.Linear`` uses MKL for float32 products, which repacks the weights in each call and does not
use AVX-512 on AMD's CPUs. On one thread of an EPYC that has it, MKL's products of 15 to 900 rows
(widths from 576 to 8,192) took 2.2 to 2.9 times as long as oneDNN's, and 1.2 to 1.5 times as long
as oneDNN's with AVX2 alone. Packing takes as long as one product of 60 rows.
"""

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

_SMALLEST = 128
"""Fewest inputs and outputs of a layer that gains."""


class PackedLinear(nn.Module):
    """A linear layer for inference on a CPU in float32; it has no gradient.

    Args:
        weight: ``(O, I)``.
        bias: ``(O,)``, or None.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None):
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
        self._bias = None if bias is None else bias.detach()

    @property
    def weight(self) -> torch.Tensor:
        """A copy of the weight ``(O, I)``, in the usual layout."""
        return self._packed.to_dense()

    @property
    def bias(self) -> torch.Tensor | None:
        """The bias ``(O,)``."""
        return self._bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(..., I)`` to ``(..., O)``."""
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")


def gains(weight: torch.Tensor) -> bool:
    """Whether a layer with this weight ``(O, I)`` can be packed and is faster for it."""
    return (
        weight.device.type == "cpu"
        and weight.dtype is torch.float32
        and min(weight.shape) >= _SMALLEST
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")  # no public interface
    )


def pack_linears(model: nn.Module) -> None:
    """Replace the frozen linear layers of a model with packed ones, in place.

    Afterwards the model is for inference only. Layers with LoRA are left alone. Memory grows only
    by an output layer that shares its weight with the embeddings.
    """
    for parent in list(model.modules()):
        if isinstance(parent, LoraLayer):
            continue
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and not child.weight.requires_grad and gains(child.weight):
                setattr(parent, name, PackedLinear(child.weight, child.bias))
