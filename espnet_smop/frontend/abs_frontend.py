"""What the model asks of an encoder."""

from abc import abstractmethod

import torch
from espnet2.asr.frontend.abs_frontend import AbsFrontend


def base_dtype(name: str | None) -> torch.dtype:
    """Return the dtype a base model is loaded in; None is bfloat16 where CUDA is available."""
    if name is None:
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    if name not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"dtype: '{name}' is none of float32, bfloat16, float16, null")
    return getattr(torch, name)


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
