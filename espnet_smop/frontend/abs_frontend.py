"""The interface of encoders."""

from abc import abstractmethod

import torch
from espnet2.asr.frontend.abs_frontend import AbsFrontend

from espnet_smop.base_model import fingerprints, frozen_keys


class AbsAVFrontend(AbsFrontend):
    """ESPnet's frontend, plus what token batches, feature fusion and packages need.

    The task calls a subclass with ``audio_frontend_conf`` or ``video_frontend_conf`` as keywords.
    An option named ``model`` is the base model's directory or hub id: relative paths are resolved
    from the config's directory, and packages can include it. ``dtype`` defaults to float32 for
    decoding on a CPU.

    A subclass defines `output_size`, `frame_rate` and `forward`. The other methods have defaults
    that suit an encoder frozen by `espnet_smop.base_model.freeze` and used without feature fusion.
    """

    max_seconds: float | None = None
    """Longest utterance that is encoded in one piece; None if there is no limit."""

    @abstractmethod
    def output_size(self) -> int:
        """Return the width D of the features."""

    @property
    @abstractmethod
    def frame_rate(self) -> float:
        """Output frames per second."""

    @abstractmethod
    def forward(
        self, input: torch.Tensor, input_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode a batch. An utterance's features must not depend on its padding.

        Args:
            input: waveforms ``(B, samples)`` at 16 kHz, or mouth crops ``(B, T, 88, 88)`` at 25
                fps, as the preprocessor returns them.
            input_lengths: ``(B,)``, in samples or frames.

        Returns:
            Features ``(B, T', D)`` and their lengths ``(B,)``, about `frame_rate` per second.
        """

    @property
    def num_layers(self) -> int:
        """Number of encoder layers L that `layers` returns; 0 if it is not implemented."""
        return 0

    def layers(
        self, input: torch.Tensor, input_lengths: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the hidden states of all layers, for feature fusion (DCI, MM-Fuser).

        Returns:
            L + 1 tensors ``(B, T', D)``: the input of the first layer, then each layer's output,
            the last of them exactly what ``forward`` returns; and the lengths ``(B,)``.

        Raises:
            ValueError: the class does not implement it.
        """
        raise ValueError(
            f"{type(self).__name__} does not return the hidden states of its layers, which the "
            "projector's fusion needs: implement `layers` and `num_layers`, or set fusion to null"
        )

    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of each frozen base model, by name."""
        return fingerprints(self)

    @property
    def is_trained(self) -> bool:
        """Whether training changes the encoder, or adapters in it."""
        return any(p.requires_grad for p in self.parameters())

    @property
    def has_checkpoint_state(self) -> bool:
        """Whether the features depend on entries of the experiment's checkpoint."""
        return bool(self.state_dict().keys() - frozen_keys(self))
