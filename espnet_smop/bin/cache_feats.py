#!/usr/bin/env python3
r"""Compute the features of frozen frontends once, for training that reads them in every epoch.

Example::

    python -m espnet_smop.bin.cache_feats --config conf/train_vsr_smop4.yaml --modality video \
        --train_dir dump/raw/train --data_dir dump/raw/valid --output_dir dump/feats \
        --preprocessor_conf "feats_copies={video: 2}"

Training reads it as data ``dump/feats/train_video/feats.scp,video_feats,kaldi_ark``.

Features that noise or augmentation change in every epoch are refused, unless
``preprocessor_conf.feats_copies`` says how many versions of each training utterance to store.
Features of an encoder that training changes are refused, too. If the projector fuses the encoder's
layers, all hidden states are stored, in ``train_video_layers``. An existing cache of the same
model, settings and data is kept; any other is refused.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from espnet_smop.command import CommandParser, add_output_dir, device, run, str2bool
from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.fileio.table import read_table
from espnet_smop.frontend.abs_frontend import AbsAVFrontend
from espnet_smop.frontend.precomputed import FeatureCacheError, open_cache, write_cache
from espnet_smop.modality import MODALITIES
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.tasks.cached_features import (
    compute_features,
    describe,
    describe_data,
    needs_layers,
    varying_settings,
)
from espnet_smop.tasks.registered import FRONTEND_CHOICES
from espnet_smop.train.lock import waiting_lock


def main(cmd: Sequence[str] | None = None) -> None:
    """Make or check the caches of each modality and data directory."""
    parser = CommandParser(
        takes_others=True,
        prog="python -m espnet_smop.bin.cache_feats",
        description=__doc__,
    )
    parser.add_argument("--config", required=True, help="training config")
    parser.add_argument(
        "--train_dir",
        nargs="+",
        default=[],
        type=Path,
        help="training data directories, cached in feats_copies versions if the config sets it",
    )
    parser.add_argument(
        "--data_dir", nargs="+", default=[], type=Path, help="other prepared data directories"
    )
    add_output_dir(parser, "parent directory of the caches, <data_dir name>_<modality>")
    parser.add_argument(
        "--modality",
        nargs="+",
        choices=list(FRONTEND_CHOICES),
        help="default: the modalities that the config has a frontend for",
    )
    parser.add_argument("--batch_size", type=int, default=16, help="utterances at a time")
    parser.add_argument(
        "--device", type=device, default="auto", help="auto (a GPU if there is one), cpu or cuda"
    )
    parser.add_argument(
        "--check", type=str2bool, default=False, help="only check that the caches match"
    )
    parser.add_argument(
        "--report",
        type=Path,
        help="skip modalities that cannot be cached instead of failing, and write a line per "
        "modality to this file: its name and 'cached as NAME' (the cache is DATA_DIR_NAME), or the "
        "reason why it is not cached",
    )
    options, overrides = parser.parse_known_args(cmd)
    names = [d.name for d in (*options.train_dir, *options.data_dir)]
    if not names:
        parser.error("give --train_dir, --data_dir or both")
    if len(set(names)) < len(names):
        parser.error("two data directories have the same name")
    args = AVSRTask.get_parser().parse_args(["--config", options.config, *overrides])
    has = [m for m in FRONTEND_CHOICES if getattr(args, f"{m}_frontend") is not None]
    report = ""
    for modality in options.modality or has:
        if modality in has:
            reasons = varying_settings(args, modality)
        else:
            reasons = [f"there is no {modality}_frontend"]
        if not reasons:
            frontend = FRONTEND_CHOICES[modality].build(args)
            reasons = varying_settings(args, modality, frontend)
        if reasons and options.report is None:
            raise FeatureCacheError(
                f"{modality} features are not cached with {options.config}: " + "; ".join(reasons)
            )
        if not reasons:
            cache_modality(args, modality, frontend, options)
        report += f"{modality} {'; '.join(reasons) or f'cached as {cache_name(args, modality)}'}\n"
    if options.report is not None:
        with atomic_write(options.report) as file:
            file.write(report)


def cache_name(args: argparse.Namespace, modality: str) -> str:
    """Return the name of a modality's caches, which follows that of the data directory."""
    return f"{modality}_layers" if needs_layers(args, modality) else modality


def cache_modality(
    args: argparse.Namespace, modality: str, frontend: AbsAVFrontend, options: argparse.Namespace
) -> None:
    """Make or check the caches of a modality, and print the paths of their ``feats.scp``."""
    prints = frontend.fingerprints()
    for data_dir in (*options.train_dir, *options.data_dir):
        train = data_dir in options.train_dir
        out = options.out / f"{data_dir.name}_{cache_name(args, modality)}"
        model = describe(args, modality, prints, train=train)
        description = model | describe_data(data_dir, modality)
        if options.check:
            print(open_cache(out, description), flush=True)
            continue
        # Another run may be writing it.
        with waiting_lock(options.out / f".{out.name}.lock"):
            if out.exists():
                scp = open_cache(out, description)
            else:
                features = compute_features(
                    args,
                    frontend.to(options.device),
                    modality,
                    data_dir,
                    train=train,
                    batch_size=options.batch_size,
                    device=options.device,
                )
                count = len(read_table(data_dir / MODALITIES[modality].scp))
                progress = tqdm(features, desc=out.name, total=count, unit="utt", mininterval=10)
                scp = write_cache(out, progress, description)
        print(scp, flush=True)


if __name__ == "__main__":
    run(main)
