"""Downsampling: consecutive encoder frames become one token for the LLM."""

from abc import ABC, abstractmethod

import torch
from torch import nn

from espnet_smop.projector.options import check_positive_int, one_of


def valid_mask(lengths: torch.Tensor, size: int) -> torch.Tensor:
    """Return a mask ``(B, size)``, True at each utterance's first ``lengths`` positions."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


class Downsample(nn.Module, ABC):
    """Turns ``rate`` consecutive frames into one token.

    Groups start at an utterance's first frame and padding counts as zeros, so a token does not
    depend on how far the batch is padded. ``remainder`` says what happens to the ``length % rate``
    frames left over at an utterance's end:

    - ``keep``: they form one more token, ``ceil(length / rate)`` in all. No speech is lost.
    - ``drop``: they are discarded, leaving ``floor(length / rate)`` tokens; an utterance shorter
      than ``rate`` gets none. Published Llama-SMoP checkpoints were trained this way.

    Args:
        input_size: frame width D.
        rate: frames per token.
        remainder: ``keep`` or ``drop``.
    """

    def __init__(self, input_size: int, rate: int, *, remainder: str = "keep"):
        super().__init__()
        self.input_size = input_size
        self.rate = check_positive_int("the downsampling rate", rate)
        self.remainder = one_of("downsample.remainder", remainder, ("keep", "drop"))

    @property
    @abstractmethod
    def output_size(self) -> int:
        """Token width."""

    @abstractmethod
    def reduce(self, groups: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Reduce ``(B, T', rate, D)``, zero beyond ``lengths`` frames, to ``(B, T', D')``."""

    def num_tokens(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the numbers of tokens for numbers of frames, integers of any shape."""
        kept = 0 if self.remainder == "drop" else self.rate - 1
        return (frames + kept) // self.rate

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Downsample.

        Args:
            x: ``(B, T, D)``; values beyond the lengths are ignored.
            lengths: ``(B,)`` in frames.

        Returns:
            Tokens ``(B, T', D')``, zero beyond their lengths, and lengths ``(B,)``.
        """
        batch, frames, size = x.shape
        whole = frames - frames % self.rate
        if self.remainder == "drop":
            x, frames = x[:, :whole], whole
            lengths = lengths - lengths % self.rate
        elif whole < frames:
            x = nn.functional.pad(x, (0, 0, 0, whole + self.rate - frames))
        x = torch.where(valid_mask(lengths, x.shape[1])[..., None], x, 0)
        # (B, T', rate, D)
        groups = x.reshape(batch, x.shape[1] // self.rate, self.rate, size)
        return self.reduce(groups, lengths), self.num_tokens(lengths)


class Stack(Downsample):
    """Concatenates the frames of a group; a kept remainder is padded with zeros.

    Keeps all information; tokens are ``rate`` times as wide as frames. The paper's choice.
    """

    @property
    def output_size(self) -> int:
        """``rate · D``."""
        return self.rate * self.input_size

    def reduce(self, groups: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Concatenate along the channel."""
        return groups.flatten(2)


class AveragePool(Downsample):
    """Averages the frames of a group; a kept remainder averages the frames it has.

    Tokens keep the encoder's width. Published Llama-SMoP checkpoints use it.
    """

    @property
    def output_size(self) -> int:
        """D."""
        return self.input_size

    def reduce(self, groups: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Average over the valid frames of each group."""
        # (1, T') first frame of each group
        first = torch.arange(groups.shape[1], device=groups.device)[None] * self.rate
        # (B, T') frames in each group
        frames = (lengths[:, None] - first).clamp(1, self.rate)
        return groups.sum(2) / frames[..., None].to(groups.dtype)


DOWNSAMPLES = {"stack": Stack, "avgpool": AveragePool}
