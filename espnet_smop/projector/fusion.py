"""Fusion of the features of several encoder layers into the projector's input."""

from abc import ABC, abstractmethod

import torch
from torch import nn

from espnet_smop.projector.downsample import valid_mask


class Fusion(nn.Module, ABC):
    """Fuses the hidden states of all encoder layers into one sequence of features.

    Args:
        input_size: width D of the hidden states.
        num_layers: number of encoder layers L.
    """

    @property
    @abstractmethod
    def output_size(self) -> int:
        """Width of the fused features."""

    @abstractmethod
    def forward(self, layers: list[torch.Tensor], lengths: torch.Tensor) -> torch.Tensor:
        """Fuse.

        Args:
            layers: L + 1 hidden states ``(B, T, D)``: the input of the first layer and the output
                of every layer; the last are the encoder's features.
            lengths: ``(B,)`` in frames.

        Returns:
            ``(B, T, D')``; undefined beyond the lengths, but finite if the layers are.
        """


class DCI(Fusion):
    """Dense channel integration (Dense Connector, NeurIPS 2024).

    Concatenates the mean of the lower half of the layers, the mean of the upper half and the
    encoder's features along the channel. With an odd L the upper half is larger by one; the first
    layer's input is not used. No parameters; features become three times as wide.

    Raises:
        ValueError: the encoder has only one layer and so no lower half.
    """

    def __init__(self, *, input_size: int, num_layers: int):
        super().__init__()
        if num_layers < 2:
            raise ValueError(
                f"dci fuses two halves of an encoder, but this one has {num_layers} layer"
            )
        self.input_size = input_size
        self.num_layers = num_layers

    @property
    def output_size(self) -> int:
        """``3 · D``."""
        return 3 * self.input_size

    def forward(self, layers: list[torch.Tensor], lengths: torch.Tensor) -> torch.Tensor:
        """Fuse; see ``Fusion``."""
        _check_layers(layers, self.num_layers)
        half = self.num_layers // 2 + 1
        lower, upper = layers[1:half], layers[half:]
        return torch.cat([sum(lower) / len(lower), sum(upper) / len(upper), layers[-1]], dim=-1)


class MMFuser(Fusion):
    """MM-Fuser (arXiv 2410.11829): features of the last layer attend to shallower layers.

    ``c = Attention(LN(last), LN(shallower))``, ``out = last + gate · (c + SelfAttention(LN(c)))``,
    with a gate per channel that starts at 0, so that training starts from the encoder's own
    features.

    The original is made for images: its two attentions are *deformable*, i.e. each query looks at a
    few points at learned offsets around its own position in each layer's 2-D feature map. A
    sequence has one dimension and hundreds of frames, not thousands of pixels. Plain multi-head
    attention over all valid frames of the shallower layers therefore replaces it: it can attend to
    the same frames and, unlike sampling at fractional positions, has no border that depends on
    padding. The encoder's features carry the positions of the frames.

    Args:
        input_size: D.
        num_layers: L. Shallower layers are those at a quarter, half and three quarters of it.
        num_heads: attention heads; D must be divisible by it.
    """

    def __init__(self, *, input_size: int, num_layers: int, num_heads: int = 8):
        super().__init__()
        self.input_size = input_size
        self.num_layers = num_layers
        self.shallower = sorted({num_layers * quarter // 4 for quarter in (1, 2, 3)})
        self.norm_last = nn.LayerNorm(input_size)
        self.norm_shallower = nn.LayerNorm(input_size)
        self.cross = Attention(size=input_size, num_heads=num_heads)
        self.norm_cross = nn.LayerNorm(input_size)
        self.self_attention = Attention(size=input_size, num_heads=num_heads)
        self.gate = nn.Parameter(torch.zeros(input_size))

    @property
    def output_size(self) -> int:
        """D."""
        return self.input_size

    def forward(self, layers: list[torch.Tensor], lengths: torch.Tensor) -> torch.Tensor:
        """Fuse; see ``Fusion``."""
        _check_layers(layers, self.num_layers)
        valid = valid_mask(lengths, layers[-1].shape[1])
        # Padding may hold NaN, and 0 · NaN in the attention would be NaN.
        last, *shallower = (
            torch.where(valid[..., None], layers[i], 0) for i in (-1, *self.shallower)
        )
        # (B, T · layers, D)
        keys = self.norm_shallower(torch.cat(shallower, dim=1))
        c = self.cross(self.norm_last(last), keys, valid.repeat(1, len(shallower)))
        normed = self.norm_cross(c)
        return last + self.gate * (c + self.self_attention(normed, normed, valid))


class Attention(nn.Module):
    """Multi-head attention over valid positions."""

    def __init__(self, *, size: int, num_heads: int):
        super().__init__()
        if size % num_heads:
            raise ValueError(f"mmfuser has {num_heads} heads, which do not divide the width {size}")
        self.num_heads = num_heads
        self.query = nn.Linear(size, size)
        self.key_value = nn.Linear(size, 2 * size)
        self.output = nn.Linear(size, size)

    def forward(self, x: torch.Tensor, source: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Attend from ``x`` ``(B, T, D)`` to ``source`` ``(B, S, D)`` where ``valid``."""
        # An utterance without a frame attends to its padding: a softmax over nothing is NaN.
        mask = valid | ~valid.any(1, keepdim=True)
        # (B, heads, T, D / heads)
        q, k, v = (
            t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for t in (self.query(x), *self.key_value(source).chunk(2, dim=-1))
        )
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        return self.output(y.transpose(1, 2).flatten(2))


def _check_layers(layers: list[torch.Tensor], num_layers: int) -> None:
    if len(layers) != num_layers + 1:
        raise ValueError(
            f"got {len(layers)} hidden states, expected {num_layers + 1}: the input of the first "
            f"layer and the outputs of {num_layers}"
        )


FUSIONS = {"dci": DCI, "mmfuser": MMFuser}
