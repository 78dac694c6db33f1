"""Training on precomputed features of frozen frontends: when they may replace a frontend.

The data names ``speech_feats`` and ``video_feats`` (ESPnet's ``kaldi_ark``) replace ``speech`` and
``video``; ``python -m espnet_smop.bin.cache_feats`` computes the features.

Features that vary from epoch to epoch, because of noise or augmentation, are not stored, unless
``preprocessor_conf.feats_copies`` sets how many versions of each training utterance to store.
"""

import argparse
import contextlib
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from espnet2.train.collate_fn import CommonCollateFn
from espnet2.train.dataset import ESPnetDataset

from espnet_smop.base_model import base_dtype
from espnet_smop.fileio.durations import longest_first, read_durations
from espnet_smop.fileio.stamp import file_stamp
from espnet_smop.fileio.table import read_table
from espnet_smop.frontend.abs_frontend import AbsAVFrontend
from espnet_smop.frontend.precomputed import FeatureCacheError, open_cache
from espnet_smop.modality import MODALITIES
from espnet_smop.train.noise import load as load_noise
from espnet_smop.train.preprocessor import AVSRPreprocessor

_BY_FEATS_NAME = {modality.feats_name: name for name, modality in MODALITIES.items()}
# Preprocessor settings that vary from epoch to epoch, and the value that switches each off.
_VARYING = {
    "audio": {"noise": None, "speech_mask": None},
    "video": {"flip_probability": 0.0, "random_crop": False, "video_mask": None},
}


def needs_layers(args: argparse.Namespace, modality: str) -> bool:
    """Return whether the projector fuses all layers of a modality's encoder."""
    return (args.projector_conf.get("fusion") or {}).get(modality) is not None


def has_precomputed(args: argparse.Namespace, modality: str) -> bool:
    """Return whether training and validation read precomputed features of a modality.

    Raises:
        FeatureCacheError: only one of them does.
    """
    name = MODALITIES[modality].feats_name
    train, valid = (
        [n for _, n, _ in getattr(args, f"{kind}_data_path_and_name_and_type", [])]
        for kind in ("train", "valid")
    )
    if (name in train) != (name in valid):
        train_has = name in train
        raise FeatureCacheError(
            f"{'training' if train_has else 'validation'} reads '{name}', but "
            f"{'validation' if train_has else 'training'} does not: give it to both"
        )
    return name in train


def varying_settings(
    args: argparse.Namespace, modality: str, frontend: AbsAVFrontend | None = None
) -> list[str]:
    """Return the reasons why the features of a modality vary, or cannot all be stored.

    Args:
        args: of the training.
        modality: ``audio`` or ``video``.
        frontend: of the modality; None checks the settings alone.
    """
    if args.preprocessor != "avsr":
        return [f"preprocessor {args.preprocessor} may change the {modality} in every epoch"]
    preprocessor = AVSRPreprocessor(train=True, **args.preprocessor_conf)
    reasons = []
    if modality not in preprocessor.feats_copies:
        reasons += [
            f"preprocessor_conf.{name} is on "
            f"(set {'null' if off is None else str(off).lower()}, or feats_copies)"
            for name, off in _VARYING[modality].items()
            if getattr(preprocessor, name) != off
        ]
    elif modality == "audio" and args.preprocessor_conf.get("noise_in_validation"):
        reasons.append(
            "preprocessor_conf.noise_in_validation is on, but validation has features without noise"
        )
    if getattr(args, f"{modality}_frontend_conf").get("lora") is not None:
        reasons.append(f"{modality}_frontend_conf.lora trains the encoder")
    if getattr(args, f"{modality}_frontend_conf").get("own_statistics"):
        reasons.append(
            f"{modality}_frontend_conf.own_statistics: the experiment's checkpoint has some of the "
            "encoder's weights, which a cache does not use"
        )
    if not reasons and frontend is not None and frontend.is_trained:
        reasons.append(f"training changes the {modality}_frontend")
    elif not reasons and frontend is not None and frontend.has_checkpoint_state:
        reasons.append(f"the experiment's checkpoint has weights of the {modality}_frontend")
    return reasons


def check_replaceable(args: argparse.Namespace, modality: str, frontend: AbsAVFrontend) -> None:
    """Check that features computed before training can replace a frontend.

    Raises:
        FeatureCacheError: its output varies; names the setting.
    """
    reasons = varying_settings(args, modality, frontend)
    if reasons:
        raise FeatureCacheError(
            f"'{MODALITIES[modality].feats_name}' cannot replace the {modality}_frontend of this "
            f"config: {'; '.join(reasons)}"
        )


def describe(
    args: argparse.Namespace, modality: str, fingerprints: Mapping[str, str], *, train: bool
) -> dict[str, Any]:
    """Return everything that the features of a modality depend on, except for the data.

    Args:
        args: of the training.
        modality: ``audio`` or ``video``.
        fingerprints: of the frontend's base models.
        train: whether they are of the training set, whose utterances may have several copies.
    """
    conf = dict(getattr(args, f"{modality}_frontend_conf"))
    conf.pop("model", None)  # its fingerprint counts, not its path
    conf.pop("compile", None)  # does not change the features
    preprocessor = AVSRPreprocessor(train=False, **args.preprocessor_conf)
    cut = preprocessor.video_multiple if modality == "video" else 1
    return {
        **({"video_multiple": cut} if cut != 1 else {}),
        **(_describe_copies(args, modality) if train else {}),
        **({"layers": "all"} if needs_layers(args, modality) else {}),
        "fingerprints": dict(fingerprints),
        "frontend": getattr(args, f"{modality}_frontend"),
        "settings": conf,
        "dtype": str(base_dtype(conf.get("dtype"))),
        "speech_normalise": preprocessor.speech_normalise if modality == "audio" else None,
    }


def _describe_copies(args: argparse.Namespace, modality: str) -> dict[str, Any]:
    """Return the number of augmented copies, and the settings that they differ by."""
    copies = _num_copies(args, modality)
    if copies is None:
        return {}
    preprocessor = AVSRPreprocessor(train=True, **{**args.preprocessor_conf, "noise": None})
    varying = {name: getattr(preprocessor, name) for name in _VARYING[modality]}
    noise = args.preprocessor_conf.get("noise")
    if "noise" in varying and noise is not None:
        content = hashlib.sha256(load_noise(noise["file"]).tobytes()).hexdigest()[:16]
        varying["noise"] = {**noise, "file": content}
    return {"copies": copies, **varying}


def _num_copies(args: argparse.Namespace, modality: str) -> int | None:
    """Return ``feats_copies`` of a modality; None if the config has none."""
    return (args.preprocessor_conf.get("feats_copies") or {}).get(modality)


def check_caches(
    args: argparse.Namespace,
    data_path_and_name_and_type: Iterable[tuple[str, str, str]],
    shape_files: Iterable[str],
    *,
    train: bool,
) -> None:
    """Check that cached features equal what the model's frontends would compute.

    Args:
        args: of the training, with the ``base_fingerprints`` of the model that was built.
        data_path_and_name_and_type: the data of training or validation.
        shape_files: list the ids of the utterances that are used.
        train: whether these are the data of training.

    Raises:
        FeatureCacheError: a cache has other base models or settings, or lacks an utterance; the
            message says which.
    """
    caches = {
        _BY_FEATS_NAME[name]: Path(path)
        for path, name, _ in data_path_and_name_and_type
        if name in _BY_FEATS_NAME
    }
    for modality, scp in caches.items():
        part = f"{modality}_frontend."
        prints = {
            name.removeprefix(part): value
            for name, value in args.base_fingerprints.items()
            if name.startswith(part)
        }
        open_cache(scp.parent, describe(args, modality, prints, train=train), ignore={"data"})
        cached = read_table(scp).keys()
        for file in shape_files:
            missing = sorted(read_table(file).keys() - cached)
            if missing:
                more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                raise FeatureCacheError(
                    f"the feature cache {scp.parent} lacks utterance {missing[0]}{more} of {file}. "
                    "Remove it to make it again"
                )


def describe_data(data_dir: Path, modality: str) -> dict[str, str]:
    """Return what the features of a modality depend on besides the model: the data files."""
    inputs = read_table(data_dir / MODALITIES[modality].scp)
    stamps = [[uid, *file_stamp(path)] for uid, path in sorted(inputs.items())]
    return {"data": hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:16]}


@torch.no_grad()
def compute_features(
    args: argparse.Namespace,
    frontend: AbsAVFrontend,
    modality: str,
    data_dir: Path,
    *,
    train: bool,
    batch_size: int,
    device: str,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each utterance's id and features ``(T, D)``, longest utterances first.

    With fusion in the projector these are the hidden states of all layers, ``(T, (L + 1) D)``.
    Utterances of the training set have ``feats_copies`` versions, one after the other:
    ``(copies T, D)``. A copy depends on the utterance's id and the copy's number alone, so that
    runs with different seeds share them.
    """
    name = MODALITIES[modality].data_name
    source = [MODALITIES[modality].source(data_dir)]
    copies = _num_copies(args, modality) if train else None
    conf = args.preprocessor_conf if copies else {**args.preprocessor_conf, "noise": None}
    preprocess = AVSRPreprocessor(train=copies is not None, **conf)
    numbers = list(map(str, range(copies or 1)))

    def versions(uid: str, signals: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        made = {}
        for copy in numbers:
            with _random_state(f"{uid} {copy}"):
                made[copy] = preprocess(uid, signals)[name]
        return made

    def encode(x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not needs_layers(args, modality):
            return frontend(x, lengths)
        layers, lengths = frontend.layers(x, lengths)
        return torch.cat(layers, dim=-1), lengths

    dataset = ESPnetDataset(source, preprocess=versions)
    collate = CommonCollateFn(float_pad_value=0.0)
    uids = longest_first(read_table(source[0][0]), read_durations(source))
    for start in range(0, len(uids), batch_size):
        batch_uids, batch = collate([dataset[uid] for uid in uids[start : start + batch_size]])
        found: list[list[np.ndarray]] = [[] for _ in batch_uids]
        for copy in numbers:
            x, lengths = encode(batch[copy].to(device), batch[f"{copy}_lengths"].to(device))
            for own, features, n in zip(found, x.float().cpu(), lengths.tolist(), strict=True):
                own.append(features[:n].numpy())
        for uid, own in zip(batch_uids, found, strict=True):
            yield uid, np.concatenate(own)


@contextlib.contextmanager
def _random_state(key: str) -> Iterator[None]:
    """Seed NumPy's global random state, which augmentation uses, with ``key``."""
    state = np.random.get_state()
    np.random.seed(zlib.crc32(key.encode()))
    try:
        yield
    finally:
        np.random.set_state(state)
