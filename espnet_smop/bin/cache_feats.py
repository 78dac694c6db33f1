#!/usr/bin/env python3
"""Compute the features of a frozen frontend once, for training that reads them in every epoch.

Example::

    python -m espnet_smop.bin.cache_feats --config conf/train.yaml --modality video \
        --data_dir dump/raw/train --out dump/feats/train_video
    python -m espnet_smop.bin.avsr_train … --train_data_path_and_name_and_type \
        dump/feats/train_video/feats.scp,video_feats,kaldi_ark

Augmentation and noise make other features in every epoch, so a config that has them for this
modality is refused, and so is one with LoRA in the encoder or fusion of its layers. A cache that is
there already and fits is left as it is; one of another model, settings or data is refused.
"""

import argparse
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from espnet2.fileio.read_text import read_2columns_text
from espnet2.train.dataset import ESPnetDataset

from espnet_smop.base_model import BaseModelError
from espnet_smop.bin.avsr_inference import order_by_length, read_lengths
from espnet_smop.frontend.abs_frontend import AbsAVFrontend
from espnet_smop.frontend.feature_cache import FeatureCacheError, open_cache, write_cache
from espnet_smop.tasks.avsr import AVSRTask, audio_frontend_choices, video_frontend_choices
from espnet_smop.train.preprocessor import AVSRPreprocessor

_CHOICES = {"audio": audio_frontend_choices, "video": video_frontend_choices}
_DATA = {"audio": ("wav.scp", "speech", "sound"), "video": ("video.scp", "video", "video")}
# Preprocessor settings that vary from epoch to epoch, and the value that switches each off.
_VARYING = {
    "audio": {"noise": None, "speech_mask": None},
    "video": {"flip_probability": 0.0, "random_crop": False, "video_mask": None},
}


def varying_settings(args: argparse.Namespace, modality: str) -> list[str]:
    """Return why the features of a modality are not the same in every epoch, or not all stored."""
    preprocessor = AVSRPreprocessor(train=True, **args.preprocessor_conf)
    reasons = [
        f"preprocessor_conf.{name} is on (set {str(off).lower() if off is not None else 'null'})"
        for name, off in _VARYING[modality].items()
        if getattr(preprocessor, name) != off
    ]
    if getattr(args, f"{modality}_frontend_conf").get("lora") is not None:
        reasons.append(f"{modality}_frontend_conf.lora trains the encoder")
    if (args.projector_conf.get("fusion") or {}).get(modality) is not None:
        reasons.append(
            f"projector_conf.fusion.{modality} wants all layers, of which a cache has one"
        )
    return reasons


def describe(
    args: argparse.Namespace, frontend: AbsAVFrontend, modality: str, data_dir: Path
) -> dict[str, Any]:
    """Return all that the features of a modality depend on."""
    conf = dict(getattr(args, f"{modality}_frontend_conf"))
    conf.pop("model", None)  # its fingerprint counts, not its place
    scp = (data_dir / _DATA[modality][0]).read_bytes()
    preprocessor = AVSRPreprocessor(train=False, **args.preprocessor_conf)
    return {
        "fingerprints": frontend.fingerprints(),
        "frontend": getattr(args, f"{modality}_frontend"),
        "settings": conf,
        "dtype": str(next(frontend.parameters()).dtype),
        "speech_normalise": preprocessor.speech_normalise if modality == "audio" else None,
        "data": hashlib.sha256(scp).hexdigest()[:16],
    }


@torch.no_grad()
def compute(
    args: argparse.Namespace,
    frontend: AbsAVFrontend,
    modality: str,
    data_dir: Path,
    *,
    batch_size: int,
    device: str,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each utterance's id and features ``(T, D)``, longest utterances first."""
    file, name, kind = _DATA[modality]
    source = [(str(data_dir / file), name, kind)]
    conf = {**args.preprocessor_conf, "noise": None}
    dataset = ESPnetDataset(source, preprocess=AVSRPreprocessor(train=False, **conf))
    collate = AVSRTask.build_collate_fn(args, train=False)
    uids = order_by_length(list(read_2columns_text(data_dir / file)), read_lengths(source))
    for start in range(0, len(uids), batch_size):
        batch_uids, batch = collate([dataset[uid] for uid in uids[start : start + batch_size]])
        features, lengths = frontend(batch[name].to(device), batch[f"{name}_lengths"].to(device))
        for uid, x, n in zip(batch_uids, features.float().cpu(), lengths.tolist(), strict=True):
            yield uid, x[:n].numpy()


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="cache_feats",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="training config")
    parser.add_argument("--modality", required=True, choices=["audio", "video"])
    parser.add_argument("--data_dir", required=True, type=Path, help="prepared data directory")
    parser.add_argument("--out", required=True, type=Path, help="directory of the cache")
    parser.add_argument("--batch_size", type=int, default=16, help="utterances at a time")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to compute"
    )
    parser.add_argument("--check", action="store_true", help="only check that the cache fits")
    options, overrides = parser.parse_known_args(argv)
    args = AVSRTask.get_parser().parse_args(["--config", options.config, *overrides])
    modality = options.modality
    try:
        name = getattr(args, f"{modality}_frontend")
        if name is None:
            raise FeatureCacheError(f"{options.config} has no {modality}_frontend")
        reasons = varying_settings(args, modality)
        if reasons:
            raise FeatureCacheError(
                f"{modality} features are not cached with this config: {'; '.join(reasons)}"
            )
        frontend = _CHOICES[modality].get_class(name)(**getattr(args, f"{modality}_frontend_conf"))
        description = describe(args, frontend, modality, options.data_dir)
        if options.check or options.out.exists():
            scp = open_cache(options.out, description)
        else:
            frontend.to(options.device)
            features = compute(
                args,
                frontend,
                modality,
                options.data_dir,
                batch_size=options.batch_size,
                device=options.device,
            )
            scp = write_cache(options.out, features, description)
    except (BaseModelError, FeatureCacheError, FileNotFoundError, ValueError) as e:
        print(f"cache_feats: {e}", file=sys.stderr)
        return 1
    print(scp)
    return 0


if __name__ == "__main__":
    sys.exit(main())
