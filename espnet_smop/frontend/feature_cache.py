"""Features of frozen frontends, computed once and read again in every epoch.

A cache is a directory with ``feats.ark``, ``feats.scp`` (ESPnet's ``kaldi_ark``) and
``cache.json``, which says what the features were computed from: base model, settings and data. It
is refused wherever that differs.
"""

import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from espnet_smop.fileio.atomic import atomic_directory

# Kaldi's kTwoByteAuto: 16-bit integers between the matrix's extremes, half of float32's size.
_TWO_BYTES = 3
_DESCRIPTION = "cache.json"


class FeatureCacheError(RuntimeError):
    """A feature cache is incomplete, or of another model, other settings or other data."""


def write_cache(
    directory: str | os.PathLike,
    features: Iterable[tuple[str, np.ndarray]],
    description: dict[str, Any],
) -> Path:
    """Write a cache, all of it or nothing.

    Args:
        directory: where it shall be; it must not exist.
        features: utterance ids and their features ``(T, D)``, in any order.
        description: what the features depend on, in JSON types.

    Returns:
        The path of ``feats.scp``, sorted by utterance id.

    Raises:
        FeatureCacheError: the directory exists.
    """
    import kaldiio

    final = Path(directory).absolute()
    if final.exists():
        raise FeatureCacheError(f"{final} is there already: remove it to make it anew")
    with atomic_directory(final) as temporary:
        # Not through a Kaldi specifier, in which neither commas nor colons could be in a path.
        offsets = {}
        with open(temporary / "feats.ark", "wb") as ark:
            for uid, array in features:
                ark.write(f"{uid} ".encode())
                offsets[uid] = ark.tell()
                array = np.asarray(array, dtype=np.float32)
                kaldiio.matio.write_array(ark, array, compression_method=_TWO_BYTES)
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
    """Return the path of a cache's ``feats.scp`` if it is what ``description`` says.

    Args:
        directory: of the cache.
        description: what its features shall depend on.
        ignore: keys of descriptions that are not compared.

    Raises:
        FeatureCacheError: it is not there, or differs; names in what.
    """
    path = Path(directory)
    if not (path / _DESCRIPTION).is_file():
        raise FeatureCacheError(
            f"there is no feature cache in {path}: make it with "
            "`python -m espnet_smop.bin.cache_feats`"
        )
    found = _flat(json.loads((path / _DESCRIPTION).read_text()))
    wanted = _flat(json.loads(json.dumps(description)))
    differing = [
        f"{key} ({found.get(key, 'none')} in the cache, {wanted.get(key, 'none')} now)"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key) and key not in ignore
    ]
    if differing:
        raise FeatureCacheError(
            f"the feature cache {path} was made with something else: {', '.join(differing)}. "
            "Remove it to make it anew, or use another directory"
        )
    return path / "feats.scp"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}.{key}" if prefix else key)
    return flat
