"""The interface of projectors."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import nn

from espnet_smop.base_model import fingerprints
from espnet_smop.projector.router import Routing

Routings = dict[str, dict[str, Routing | None]]
"""Router → modality → where its tokens went; None where one expert needs no router."""


@dataclass
class ProjectorOutput:
    """Tokens for the LLM, and the losses and statistics of routing.

    Attributes:
        tokens: modality → ``(B, T', E)``.
        lengths: modality → ``(B,)``, valid tokens per utterance.
        aux_loss: weighted sum of the auxiliary losses, a scalar.
        stats: name → scalar tensor (detached) for the reporter.
        routings: where each router sent the tokens, ``B · T'`` per modality; the analysis shows
            them. Empty for a projector without routers.
    """

    tokens: dict[str, torch.Tensor]
    lengths: dict[str, torch.Tensor]
    aux_loss: torch.Tensor | float = 0.0
    stats: dict[str, torch.Tensor] = field(default_factory=dict)
    routings: Routings = field(default_factory=dict)


class AbsProjector(nn.Module, ABC):
    """Maps encoder features ``(B, T, D)`` per modality to LLM tokens ``(B, T', E)``.

    The task calls a subclass with ``input_sizes`` (modality → D), ``output_size`` (E) and
    ``num_layers`` (modality → number of encoder layers), then with ``projector_conf`` as keywords.
    It defines `forward` and `num_tokens`; the other methods have defaults.
    """

    needs_layers: frozenset[str] = frozenset()
    """Modalities for which ``forward`` takes the hidden states of every encoder layer."""

    rates: Mapping[str, Sequence[int]] = MappingProxyType({})
    """Modality → encoder frames per token to choose from. If there are any, ``forward`` also takes
    ``rates`` (modality → rate) and ``num_tokens`` also ``rate``."""

    @abstractmethod
    def forward(
        self,
        features: dict[str, torch.Tensor],
        lengths: dict[str, torch.Tensor],
        layers: dict[str, list[torch.Tensor]] | None = None,
    ) -> ProjectorOutput:
        """Project the features of one or all modalities. A token must not depend on padding.

        Args:
            features: modality → ``(B, T, D)``, in the encoder's dtype.
            lengths: modality → ``(B,)``.
            layers: modality → L + 1 hidden states ``(B, T, D)``, for those in ``needs_layers``.
        """

    @abstractmethod
    def num_tokens(self, modality: str, frames: torch.Tensor) -> torch.Tensor:
        """Return the number of tokens that ``forward`` makes from a number of frames.

        Args:
            modality: ``audio`` or ``video``.
            frames: encoder frames of utterances, integers of any shape; the result has the same.
        """

    def num_tokens_at(
        self, modality: str, frames: torch.Tensor, rates: Mapping[str, int]
    ) -> torch.Tensor:
        """Return `num_tokens` at a view's rates, which are empty for a single-rate projector."""
        if not rates:
            return self.num_tokens(modality, frames)
        return self.num_tokens(modality, frames, rate=rates[modality])

    def init_output_rms(self, rms: torch.Tensor) -> None:
        """Scale the untrained weights so that tokens have this root mean square, a scalar.

        Raises:
            ValueError: the class does not implement it.
        """
        raise ValueError(
            f"{type(self).__name__} does not implement `init_output_rms`, which the warm start "
            "calls: implement it, or leave out model_conf.ctc_warmup_steps"
        )

    def num_active_parameters(self) -> int:
        """Return the number of parameters that one token goes through, with K of N experts."""
        return sum(p.numel() for p in self.parameters())

    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of each frozen base model, by name."""
        return fingerprints(self)
