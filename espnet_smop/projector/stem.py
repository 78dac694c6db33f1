"""The steps before the experts: layer fusion, if any, and downsampling, for each modality."""

from collections.abc import Mapping

import torch
from torch import nn

from espnet_smop.modality import MODALITIES
from espnet_smop.projector.downsample import DOWNSAMPLES, Downsample
from espnet_smop.projector.fusion import FUSIONS
from espnet_smop.projector.options import complete, one_of, rates_of

DOWNSAMPLE_DEFAULTS = {"mode": "stack", "audio": 3, "video": 3, "remainder": "keep"}
FUSION_DEFAULTS = {"audio": None, "video": None}


class Stem(nn.Module):
    """Turns encoder features into tokens for the experts.

    Args:
        input_sizes: modality → width D of the encoder's features.
        num_layers: modality → number of encoder layers L, for fusion.
        downsample: ``mode`` (``stack`` or ``avgpool``), a rate or list of rates per modality, and
            ``remainder``; missing keys have the values of ``DOWNSAMPLE_DEFAULTS``.
        fusion: modality → None, ``dci`` or ``mmfuser``.

    Attributes:
        output_sizes: modality → rate → token width.
        rates: modality → rates to choose from; empty if there are no lists of rates.
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
            self.downsamples[modality] = nn.ModuleDict(
                {
                    str(rate): build(size, rate, remainder=downsample["remainder"])
                    for rate in rates_of(f"downsample.{modality}", downsample[modality])
                }
            )
        self.output_sizes = {
            m: {int(rate): d.output_size for rate, d in by_rate.items()}
            for m, by_rate in self.downsamples.items()
        }
        self.rates = {}
        if any(isinstance(downsample[m], list | tuple) for m in input_sizes):
            self.rates = {m: tuple(sizes) for m, sizes in self.output_sizes.items()}

    def downsample(self, modality: str, rate: int | None = None) -> Downsample:
        """Return the downsampling for a rate; None is the first one.

        Raises:
            ValueError: there is no such rate.
        """
        by_rate = self.downsamples[modality]
        if rate is None:
            return next(iter(by_rate.values()))
        return by_rate[one_of(f"the {modality} rate", str(rate), by_rate)]

    def forward(
        self,
        features: dict[str, torch.Tensor],
        lengths: dict[str, torch.Tensor],
        layers: dict[str, list[torch.Tensor]],
        rates: Mapping[str, int],
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Return tokens ``(B, T', D')`` and their lengths ``(B,)`` per modality.

        A modality without an entry in ``rates`` uses its first rate.
        """
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
            downsample = self.downsample(modality, rates.get(modality))
            tokens[modality], token_lengths[modality] = downsample(x, lengths[modality])
        return tokens, token_lengths
