"""The steps before the experts: layer fusion, if any, and downsampling, for each modality."""

from collections.abc import Mapping

import torch
from torch import nn

from espnet_smop.modality import MODALITIES
from espnet_smop.projector.downsample import DOWNSAMPLES
from espnet_smop.projector.fusion import FUSIONS
from espnet_smop.projector.options import complete, one_of

DOWNSAMPLE_DEFAULTS = {"mode": "stack", "audio": 3, "video": 3, "remainder": "keep"}
FUSION_DEFAULTS = {"audio": None, "video": None}


class Stem(nn.Module):
    """Turns encoder features into tokens for the experts.

    Args:
        input_sizes: modality → width D of the encoder's features.
        num_layers: modality → number of encoder layers L, for fusion.
        downsample: ``mode`` (``stack`` or ``avgpool``), a rate per modality, and ``remainder``;
            missing keys have the values of ``DOWNSAMPLE_DEFAULTS``.
        fusion: modality → None, ``dci`` or ``mmfuser``.

    Attributes:
        output_sizes: modality → token width.
    """

    def __init__(
        self,
        *,
        input_sizes: Mapping[str, int],
        num_layers: Mapping[str, int],
        downsample: Mapping | None = None,
        fusion: Mapping[str, str | None] | None = None,
    ):
        super().__init__()
        downsample = complete("downsample", downsample, DOWNSAMPLE_DEFAULTS)
        fusion = complete("fusion", fusion, FUSION_DEFAULTS)
        build = DOWNSAMPLES[one_of("downsample.mode", downsample["mode"], DOWNSAMPLES)]
        if not input_sizes:
            raise ValueError("a projector needs a modality: set audio_frontend or video_frontend")
        self.fusions = nn.ModuleDict()
        self.downsamples = nn.ModuleDict()
        for modality, size in input_sizes.items():
            one_of("a modality", modality, MODALITIES)
            kind = one_of(f"fusion.{modality}", fusion[modality], (None, *FUSIONS))
            if kind is not None and not num_layers[modality]:
                raise ValueError(
                    f"fusion.{modality} is {kind}, but the {modality} encoder does not return the "
                    "hidden states of its layers: set it to null"
                )
            if kind is not None:
                self.fusions[modality] = FUSIONS[kind](
                    input_size=size, num_layers=num_layers[modality]
                )
                size = self.fusions[modality].output_size
            self.downsamples[modality] = build(
                size, downsample[modality], remainder=downsample["remainder"]
            )
        self.output_sizes = {m: d.output_size for m, d in self.downsamples.items()}

    def forward(
        self,
        features: dict[str, torch.Tensor],
        lengths: dict[str, torch.Tensor],
        layers: dict[str, list[torch.Tensor]],
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Return tokens ``(B, T', D')`` and their lengths ``(B,)`` per modality."""
        tokens, token_lengths = {}, {}
        for modality in MODALITIES:
            if modality not in features:
                continue
            one_of("the features' modality", modality, self.downsamples)
            x = features[modality]
            if modality in self.fusions:
                if modality not in layers:
                    raise ValueError(
                        f"fusion of {modality} needs the hidden states of every encoder layer, got "
                        "only its features: pass `layers` for the modalities in `needs_layers`"
                    )
                x = self.fusions[modality](layers[modality], lengths[modality])
            tokens[modality], token_lengths[modality] = self.downsamples[modality](
                x, lengths[modality]
            )
        return tokens, token_lengths
