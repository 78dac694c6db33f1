"""What the model asks of a projector."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class ProjectorOutput:
    """Tokens for the LLM and what routing cost.

    Attributes:
        tokens: modality → ``(B, T', E)``.
        lengths: modality → ``(B,)``, valid tokens per utterance.
        aux_loss: weighted sum of the auxiliary losses, a scalar.
        stats: name → scalar tensor (detached) for the reporter.
    """

    tokens: dict[str, torch.Tensor]
    lengths: dict[str, torch.Tensor]
    aux_loss: torch.Tensor
    stats: dict[str, torch.Tensor] = field(default_factory=dict)


class AbsProjector(nn.Module, ABC):
    """Maps encoder features ``(B, T, D)`` per modality to LLM tokens ``(B, T', E)``."""

    needs_layers: frozenset[str] = frozenset()
    """Modalities for which ``forward`` wants the hidden states of every encoder layer."""

    @abstractmethod
    def init_output_rms(self, rms: torch.Tensor) -> None:
        """Let tokens have about this root mean square (a scalar), before any training."""

    @abstractmethod
    def forward(
        self,
        features: dict[str, torch.Tensor],
        lengths: dict[str, torch.Tensor],
        layers: dict[str, list[torch.Tensor]] | None = None,
    ) -> ProjectorOutput:
        """Project the features of every modality.

        Args:
            features: modality → ``(B, T, D)``.
            lengths: modality → ``(B,)``.
            layers: modality → L + 1 hidden states ``(B, T, D)``, for those in ``needs_layers``.
        """
