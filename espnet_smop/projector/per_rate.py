"""Mixtures of projectors, one for each downsampling rate."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from espnet_smop.projector.router import Routing
from espnet_smop.views import rate_pairs_of, rates_tag


class MixturePerRate(nn.Module):
    """A mixture for each rate of each modality or, with joint experts, for each pair of rates.

    With joint experts, one modality alone uses the mixture of the first pair with its rate.

    Args:
        sizes: modality → rate → token width.
        build: builds a mixture from modality → token width.
        joint: whether modalities share experts.
    """

    def __init__(
        self,
        sizes: Mapping[str, Mapping[int, int]],
        build: Callable[[dict[str, int]], nn.Module],
        *,
        joint: bool,
    ):
        super().__init__()
        if joint:
            self.keys = rate_pairs_of(sizes)
        else:
            self.keys = [{m: rate} for m, by_rate in sizes.items() for rate in by_rate]
        self.mixtures = nn.ModuleDict(
            {
                rates_tag(key): build({m: sizes[m][rate] for m, rate in key.items()})
                for key in self.keys
            }
        )

    def forward(
        self, x: dict[str, torch.Tensor], valid: dict[str, torch.Tensor], rates: Mapping[str, int]
    ) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, Routing | None]]]:
        """Project tokens ``(M, D)`` to ``(M, E)``.

        Args:
            x: modality → tokens.
            valid: modality → ``(M,)``, False for padding.
            rates: modality → rate of its tokens.
        """
        y, routings = {}, {}
        for mixture, modalities in self._chosen({m: rates[m] for m in x}):
            own, by_router = mixture(
                {m: x[m] for m in modalities}, {m: valid[m] for m in modalities}
            )
            y |= own
            routings |= by_router
        return {m: y[m] for m in x}, routings

    def of_other_rates(self) -> list[nn.Module]:
        """Return the mixtures that tokens at the first rates do not use."""
        first = {m: rate for key in reversed(self.keys) for m, rate in key.items()}
        used = [mixture for mixture, _ in self._chosen(first)]
        return [mixture for mixture in self.mixtures.values() if mixture not in used]

    def _chosen(self, rates: dict[str, int]) -> Iterator[tuple[nn.Module, list[str]]]:
        """Yield the mixtures for these rates, and the modalities of each."""
        left = dict(rates)
        for key in self.keys:
            modalities = [m for m in left if m in key]
            if modalities and all(key[m] == left[m] for m in modalities):
                yield self.mixtures[rates_tag(key)], modalities
                left = {m: rate for m, rate in left.items() if m not in modalities}
