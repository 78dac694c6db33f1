"""Frontends that cut and pad as the public Llama-AVSR code does.

``audio_frontend: espnet_smop.checkpoint.llama_smop.frontends:PublicWhisperFrontend`` counts frames
as that code does. That code also encodes padded frames, attends to them, routes them and counts
them in the auxiliary losses, so that in training the result for an utterance depends on its batch.
``UnmaskedWhisperFrontend`` and ``UnmaskedAVHuBERTFrontend`` reproduce this for comparisons.
"""

import torch

from espnet_smop.frontend.abs_frontend import AbsAVFrontend
from espnet_smop.frontend.avhubert import AVHuBERTFrontend
from espnet_smop.frontend.whisper import WhisperFrontend
from espnet_smop.modality import SAMPLE_RATE

_MIN_FRAMES = 25


class PublicWhisperFrontend(WhisperFrontend):
    """Whisper whose output is cut to ``max(int(n / 16000 * 50), 25)`` frames for n samples.

    The public code divides in float32, which can give one frame less than ``n // 320``.
    """

    def num_frames(self, samples: torch.Tensor) -> torch.Tensor:
        """Return the number of frames of utterances with these numbers of samples."""
        return (samples / SAMPLE_RATE * 50).to(torch.int64).clamp(min=_MIN_FRAMES)


class _Unmasked(AbsAVFrontend):
    """Treats every utterance of a batch as if it were as long as the longest."""

    def forward(
        self, input: torch.Tensor, input_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return super().forward(input, torch.full_like(input_lengths, input.shape[1]))

    def layers(
        self, input: torch.Tensor, input_lengths: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        return super().layers(input, torch.full_like(input_lengths, input.shape[1]))


class UnmaskedWhisperFrontend(_Unmasked, PublicWhisperFrontend):
    """Whisper that attends to padding as if it were speech."""


class UnmaskedAVHuBERTFrontend(_Unmasked, AVHuBERTFrontend):
    """AV-HuBERT that attends to padding as if it were video."""
