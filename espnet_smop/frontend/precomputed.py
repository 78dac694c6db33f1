"""Features of a frozen frontend, computed once and read again in every epoch.

A feature cache is a directory with ``feats.ark``, ``feats.scp`` (ESPnet's ``kaldi_ark``) and
``cache.json``, which records the base model, settings and data that the features were computed
from. A cache is refused if any of these differ.
"""

import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_smop.config import flatten
from espnet_smop.fileio.atomic import atomic_directory
from espnet_smop.frontend.abs_frontend import AbsAVFrontend

# Kaldi's kTwoByteAuto: 16-bit integers between the matrix's extremes, half of float32's size.
_TWO_BYTES = 3
_FLOAT32 = None
_DESCRIPTION = "cache.json"


class FeatureCacheError(RuntimeError):
    """A feature cache is incomplete, or was made with another model, settings or data."""


class PrecomputedFeatures(AbsAVFrontend):
    """Replaces a frozen frontend when its features, not the signal, are the model's input.

    Args:
        frontend: the frontend that computed the features. Its weights are not kept.
    """

    def __init__(self, frontend: AbsAVFrontend):
        super().__init__()
        self._output_size = frontend.output_size()
        self._num_layers = frontend.num_layers
        self._frame_rate = frontend.frame_rate
        self._fingerprints = frontend.fingerprints()

    def output_size(self) -> int:
        """Return the width D of the features."""
        return self._output_size

    @property
    def num_layers(self) -> int:
        """Number of encoder layers L of the frontend that computed the features."""
        return self._num_layers

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self._frame_rate

    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprints of the base models that computed the features."""
        return self._fingerprints

    def forward(
        self, input: torch.Tensor, input_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the features ``(B, T, D)`` and lengths ``(B,)`` as they are.

        Raises:
            ValueError: the features do not have the frontend's width.
        """
        self._check(input, self._output_size, "make the feature cache with this frontend")
        return input, input_lengths

    def layers(
        self, input: torch.Tensor, input_lengths: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Split the features into the L + 1 hidden states ``(B, T, D)``.

        Raises:
            ValueError: these are not the hidden states of all layers.
        """
        remedy = "projector_conf.fusion needs all layers, so make the feature cache with it"
        self._check(input, (self._num_layers + 1) * self._output_size, remedy)
        return list(input.split(self._output_size, dim=-1)), input_lengths

    @staticmethod
    def _check(input: torch.Tensor, width: int, remedy: str) -> None:
        if input.dim() != 3 or input.shape[-1] != width:
            raise ValueError(
                f"expected precomputed features (batch, frames, {width}), but got "
                f"{tuple(input.shape)}: {remedy}"
            )


def write_cache(
    directory: str | os.PathLike,
    features: Iterable[tuple[str, np.ndarray]],
    description: dict[str, Any],
) -> Path:
    """Write a cache atomically.

    The last layer's values, which are normalised, take 16 bits. Hidden states take 32: some of
    their dimensions are a thousand times larger than others.

    Args:
        directory: must not exist yet.
        features: utterance ids and their features ``(T, D)``, in any order.
        description: what the features depend on, in JSON types.

    Returns:
        The path of ``feats.scp``, sorted by utterance id.

    Raises:
        FeatureCacheError: the directory exists.
    """
    import kaldiio

    method = _FLOAT32 if "layers" in description else _TWO_BYTES
    final = Path(directory).absolute()
    if final.exists():
        raise FeatureCacheError(f"{final} exists already: remove it to make it again")
    with atomic_directory(final) as temporary:
        # A Kaldi specifier would allow neither commas nor colons in the path.
        offsets = {}
        with open(temporary / "feats.ark", "wb") as ark:
            for uid, array in features:
                ark.write(f"{uid} ".encode())
                offsets[uid] = ark.tell()
                array = np.asarray(array, dtype=np.float32)
                kaldiio.matio.write_array(ark, array, compression_method=method)
        lines = [f"{uid} {final / 'feats.ark'}:{offsets[uid]}\n" for uid in sorted(offsets)]
        (temporary / "feats.scp").write_text("".join(lines), encoding="utf-8")
        (temporary / _DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
    return final / "feats.scp"


def open_cache(
    directory: str | os.PathLike,
    description: dict[str, Any],
    *,
    ignore: Collection[str] = (),
) -> Path:
    """Return the path of a cache's ``feats.scp`` if it matches ``description``.

    Args:
        directory: of the cache.
        description: what its features must depend on.
        ignore: keys of the description that are not compared.

    Raises:
        FeatureCacheError: there is no cache, or it differs; the message says how.
    """
    path = Path(directory)
    if not (path / _DESCRIPTION).is_file():
        raise FeatureCacheError(
            f"there is no feature cache in {path}: make it with "
            "`python -m espnet_smop.bin.cache_feats`"
        )
    found = flatten(json.loads((path / _DESCRIPTION).read_text()))
    wanted = flatten(description)
    differing = [
        f"{key} ({found.get(key, 'none')} in the cache, {wanted.get(key, 'none')} now)"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key) and key not in ignore
    ]
    if differing:
        raise FeatureCacheError(
            f"the feature cache {path} does not match: {', '.join(differing)}. "
            "Remove it to make it again, or use another directory"
        )
    return path / "feats.scp"
