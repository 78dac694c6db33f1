"""What the model asks of an encoder."""

from abc import abstractmethod

import torch
from espnet2.asr.frontend.abs_frontend import AbsFrontend


class AbsAVFrontend(AbsFrontend):
    """ESPnet's frontend, plus access to every layer for feature fusion (DCI, MM-Fuser)."""

    @property
    @abstractmethod
    def num_layers(self) -> int:
        """Number of encoder layers L."""

    @property
    @abstractmethod
    def frame_rate(self) -> float:
        """Output frames per second."""

    @abstractmethod
    def layers(
        self, input: torch.Tensor, input_lengths: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the hidden states of all layers.

        Returns:
            L + 1 tensors ``(B, T, D)``: the input of the first layer, then each layer's output,
            the last of them exactly what ``forward`` returns; and the lengths ``(B,)``.
        """

    @abstractmethod
    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of each frozen base model, by name."""
