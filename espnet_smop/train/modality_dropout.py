"""Training utterances that lack one of their modalities."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from espnet_smop.modality import MODALITIES
from espnet_smop.projector.abs_projector import ProjectorOutput


class ModalityDropout(nn.Module):
    """Leaves out the audio or the video of an utterance, never both, as in AV-HuBERT's training.

    The model then has to read lips where it would otherwise rely on the sound, and can recognise
    utterances that lack one of them. A missing modality leaves no gap in the LLM's input.
    Active in training only.

    Source: AV-HuBERT (arXiv 2201.02184), Section 3.2; there, the encoder's input is dropped.

    Args:
        probabilities: modality → probability that an utterance lacks it; by default 0.

    Raises:
        ValueError: an unknown modality, or probabilities below 0 or with a sum above 1.
    """

    def __init__(self, probabilities: Mapping[str, float] | None = None):
        super().__init__()
        probabilities = {} if probabilities is None else probabilities
        if not isinstance(probabilities, Mapping) or set(probabilities) - set(MODALITIES):
            raise ValueError(
                f"modality_dropout is {probabilities!r}, expected {{audio: P, video: P}}"
            )
        values = [probabilities.get(modality, 0.0) for modality in MODALITIES]
        if not all(isinstance(p, int | float) and p >= 0 for p in values) or sum(values) > 1:
            raise ValueError(
                f"modality_dropout is {probabilities!r}, expected probabilities of at least 0 with "
                "a sum of at most 1: an utterance lacks one modality at most"
            )
        self.probabilities = dict(zip(MODALITIES, values, strict=True))

    def forward(self, projected: ProjectorOutput) -> ProjectorOutput:
        """Set the lengths ``(B,)`` of dropped modalities to 0; a single modality is kept."""
        lengths = projected.lengths
        if not self.training or not any(self.probabilities.values()) or len(lengths) < 2:
            return projected
        batch = len(next(iter(lengths.values())))
        draw = torch.rand(batch)
        start, kept = 0.0, {}
        for modality, n in lengths.items():
            end = start + self.probabilities[modality]
            lacks = (start <= draw) & (draw < end)
            kept[modality] = n.masked_fill(lacks.to(n.device), 0)
            start = end
        return replace(projected, lengths=kept)
