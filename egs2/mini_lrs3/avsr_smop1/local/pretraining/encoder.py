#!/usr/bin/env python3
"""Pretrain a small encoder with CTC and save it in the format of published encoders.

Writes a directory for ``audio_frontend_conf`` (a Hugging Face Whisper encoder) or
``video_frontend_conf`` (an AV-HuBERT), with float16 weights.

Example::

    python -m pretraining.encoder --modality audio --train_dir dump/raw/train \
        --valid_dir dump/raw/valid --out exp/base/whisper
"""

import argparse
import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from espnet2.iterators.sequence_iter_factory import worker_init_fn
from espnet2.torch_utils.set_all_random_seed import set_all_random_seed
from espnet2.train.collate_fn import CommonCollateFn
from espnet2.train.dataset import ESPnetDataset
from espnet2.utils.types import str_or_none
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from espnet_smop.command import run
from espnet_smop.corpus.shapes import durations
from espnet_smop.fileio.atomic import atomic_directory
from espnet_smop.fileio.table import read_table
from espnet_smop.fileio.video import register
from espnet_smop.frontend.avhubert import AVHuBERTConfig, AVHuBERTModel
from espnet_smop.frontend.log_mel import LogMel
from espnet_smop.frontend.whisper import SAMPLES_PER_FRAME, encode
from espnet_smop.modality import MODALITIES
from espnet_smop.train.preprocessor import AVSRPreprocessor
from pretraining.ctc import Batch, CTCConfig, CTCModel, error_rate, train_ctc

_MARK = "pretraining.json"


class AudioEncoder(nn.Module):
    """A trainable Whisper encoder with its spectrogram."""

    def __init__(self, config: WhisperConfig):
        super().__init__()
        self.model = WhisperEncoder(config)
        self.log_mel = LogMel(num_mels=config.num_mel_bins)
        self.width = config.d_model

    def forward(self, x: torch.Tensor, x_lengths: torch.Tensor):
        """Map waveforms ``(B, samples)`` to features ``(B, T, D)`` and lengths ``(B,)``."""
        lengths = (x_lengths // SAMPLES_PER_FRAME).clamp(min=1)
        mel = self.log_mel(x, x_lengths, (int(lengths.max()) + 2) * SAMPLES_PER_FRAME)
        return encode(self.model, mel, lengths)[-1], lengths


class VideoEncoder(nn.Module):
    """A trainable AV-HuBERT that sees lips only."""

    def __init__(self, config: AVHuBERTConfig):
        super().__init__()
        self.model = AVHuBERTModel(config)
        self.width = config.encoder_embed_dim

    def forward(self, x: torch.Tensor, x_lengths: torch.Tensor):
        """Map mouth crops ``(B, T, 88, 88)`` to features ``(B, T, D)`` and lengths ``(B,)``."""
        return self.model(video=x, lengths=x_lengths)[-1], x_lengths


def build_encoder(modality: str, conf: dict[str, Any]) -> nn.Module:
    """Return an encoder with random weights; ``conf`` overrides the small sizes used here."""
    if modality == "audio":
        sizes = {
            "num_mel_bins": 80,
            "d_model": 160,
            "encoder_layers": 4,
            "encoder_attention_heads": 4,
            "encoder_ffn_dim": 640,
            "max_source_positions": 1500,
            "dropout": 0.0,
            # Whisper's 0.02 suits widths of a thousand; narrow layers would attenuate the signal
            "init_std": 0.08,
            "attn_implementation": "sdpa",
        }
        return AudioEncoder(WhisperConfig(**{**sizes, **conf}))
    sizes = {
        "encoder_layers": 4,
        "encoder_embed_dim": 160,
        "encoder_ffn_embed_dim": 640,
        "encoder_attention_heads": 4,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "conv_pos": 32,
        "resnet_stem_channels": 16,
        "resnet_stem_stride": 4,
        "resnet_channels": [16, 32, 64, 128],
        "resnet_blocks": [1, 1, 1, 1],
        "resnet_relu_type": "relu",
    }
    return VideoEncoder(AVHuBERTConfig(**{**sizes, **conf}))


class Units:
    """Tokens of CTC: the characters of a text, or its words.

    Letters need little data; words of a small vocabulary make the encoder distinguish what letters
    leave ambiguous. Trained together, both were learnt faster than either alone.

    Args:
        separator: string between tokens; "" for letters, " " for words.
        sentences: text that defines the vocabulary; other tokens are dropped by `encode`.
    """

    def __init__(self, separator: str, sentences: Iterable[str]):
        self.separator = separator
        self.tokens = sorted({token for s in sentences for token in self._split(s)})
        self.ids = {token: i for i, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def _split(self, text: str) -> list[str]:
        return text.split(self.separator) if self.separator else list(text)

    def encode(self, text: str) -> list[int]:
        """Return an id for each token."""
        return [self.ids[token] for token in self._split(text) if token in self.ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of these ids."""
        return self.separator.join(self.tokens[i] for i in ids)


class Batches:
    """Padded batches of utterances of similar length, shuffled anew every epoch.

    The first epoch goes from short to long, so that CTC finds its alignments sooner (Amodei et al.
    2015, "SortaGrad"). Noise is added only after the first epochs for the same reason.

    Args:
        data_dir: directory with the scp of the modality and ``text``.
        modality: ``audio`` or ``video``.
        preprocess: ESPnet preprocessor.
        units: kinds of target tokens.
        batch_size: utterances per batch.
        seed: seed of the shuffling.
        num_workers: data loading processes.
        device: device of the batches.
        clean_epochs: epochs without noise.
    """

    def __init__(
        self,
        data_dir: Path,
        modality: str,
        preprocess: AVSRPreprocessor,
        units: Sequence[Units],
        *,
        batch_size: int,
        seed: int,
        num_workers: int,
        device: str,
        clean_epochs: int,
    ):
        self.name = MODALITIES[modality].data_name
        source = MODALITIES[modality].source(data_dir)
        self.dataset = ESPnetDataset([source], preprocess=preprocess)
        self.text = read_table(data_dir / "text")
        self.units = units
        lengths = durations(data_dir)
        keys = sorted(lengths, key=lambda key: (lengths[key], key))
        self.batches = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
        self.seed = seed
        self.num_workers = num_workers
        self.device = device
        self.clean_epochs = clean_epochs
        self.preprocess = preprocess
        self.noise = preprocess.noise
        self.collate = CommonCollateFn(float_pad_value=0.0, int_pad_value=-1)

    def __len__(self) -> int:
        return len(self.batches)

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        batches = list(self.batches)
        if epoch > 1:
            np.random.RandomState(self.seed + epoch).shuffle(batches)
        if self.noise is not None:
            self.preprocess.noise = self.noise if epoch > self.clean_epochs else None
        loader = DataLoader(
            self.dataset,
            batch_sampler=batches,
            collate_fn=self.collate,
            num_workers=self.num_workers,
            worker_init_fn=partial(worker_init_fn, base_seed=self.seed + 1000 * epoch),
        )
        for keys, batch in loader:
            x = batch[self.name].to(self.device, non_blocking=True)
            x_lengths = batch[f"{self.name}_lengths"].to(self.device)
            yield x, x_lengths, [self._targets(unit, keys) for unit in self.units]

    def _targets(self, units: Units, keys: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        ids = [torch.tensor(units.encode(self.text[key]), dtype=torch.long) for key in keys]
        lengths = torch.tensor([len(i) for i in ids])
        return pad_sequence(ids, batch_first=True).to(self.device), lengths.to(self.device)


def pretrain(
    *,
    modality: str,
    train_dir: Path,
    valid_dir: Path,
    out: Path,
    noise: str | None,
    snrs: list[float],
    noise_probability: float,
    encoder_conf: dict[str, Any],
    word_stride: int,
    config: CTCConfig,
    num_workers: int,
) -> None:
    """Train an encoder and write it to ``out`` atomically.

    Raises:
        ValueError: ``out`` holds an encoder made with other settings.
    """
    settings = {
        "modality": modality,
        "encoder_conf": encoder_conf,
        "word_stride": word_stride,
        "noise": {"snr": snrs, "probability": noise_probability} if noise else None,
        **vars(config),
    }
    if (out / _MARK).is_file():
        if json.loads((out / _MARK).read_text())["settings"] == settings:
            logging.info("%s is complete: kept", out)
            return
        raise ValueError(
            f"{out} holds an encoder made with other settings (see {out / _MARK}). Remove it to "
            "train it again"
        )
    set_all_random_seed(config.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sentences = read_table(train_dir / "text").values()
    units = [Units("", sentences), Units(" ", sentences)]
    # CTC would have to spell what is masked
    conf = {"speech_mask": None, "video_mask": None}
    if noise and modality == "audio":
        conf["noise"] = {"file": noise, "snr": snrs, "probability": noise_probability}
    batches = {
        part: Batches(
            directory,
            modality,
            AVSRPreprocessor(part == "train", None, **conf),
            units,
            batch_size=config.batch_size,
            seed=config.seed,
            num_workers=num_workers,
            device=device,
            clean_epochs=round(0.2 * config.epochs),
        )
        for part, directory in (("train", train_dir), ("valid", valid_dir))
    }
    encoder = build_encoder(modality, encoder_conf)
    model = CTCModel(
        encoder,
        width=encoder.width,
        vocabularies=[len(unit) for unit in units],
        strides=[1, word_stride],
    )
    model.to(device)
    start = time.perf_counter()
    out.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = out.with_name(f"{out.name}.checkpoint.pth")
    train_ctc(model, batches["train"], len(batches["train"]), config, checkpoint=checkpoint)
    error = error_rate(model, batches["valid"](0), units[-1].decode)
    seconds = time.perf_counter() - start
    logging.info("%s encoder: validation WER %.1f %% after %.0f s", modality, error, seconds)

    with atomic_directory(out) as directory:
        encoder.model.eval().cpu().half().save_pretrained(directory)
        (directory / _MARK).write_text(
            json.dumps({"settings": settings, "valid_wer": error, "seconds": seconds}, indent=1)
        )
    checkpoint.unlink()


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modality", choices=("audio", "video"), required=True)
    parser.add_argument("--train_dir", type=Path, required=True, help="Directory below dump/raw")
    parser.add_argument("--valid_dir", type=Path, required=True, help="Directory below dump/raw")
    parser.add_argument("--out", type=Path, required=True, help="Directory to write")
    parser.add_argument("--noise", type=str_or_none, help="Noise file for the audio encoder")
    parser.add_argument(
        "--snrs", type=float, nargs="+", default=[-5, 0, 5, 10], help="Signal-to-noise ratios in dB"
    )
    parser.add_argument(
        "--noise_probability", type=float, default=0.7, help="Share of noisy utterances"
    )
    parser.add_argument(
        "--encoder_conf", type=json.loads, default={}, help="JSON that overrides sizes"
    )
    parser.add_argument(
        "--word_stride",
        type=int,
        default=1,
        help="Classify words from means over this many features: the rate to which a projector "
        "will downsample them. Letters use every feature",
    )
    parser.add_argument("--epochs", type=int, default=CTCConfig.epochs, help="Passes over the data")
    parser.add_argument(
        "--batch_size", type=int, default=CTCConfig.batch_size, help="Utterances per step"
    )
    parser.add_argument(
        "--lr", type=float, default=CTCConfig.lr, help="Peak learning rate of AdamW"
    )
    parser.add_argument(
        "--matrix_lr",
        type=float,
        default=CTCConfig.matrix_lr,
        help="Peak learning rate of Muon (matrices)",
    )
    parser.add_argument("--weight_decay", type=float, default=CTCConfig.weight_decay)
    parser.add_argument("--seed", type=int, default=CTCConfig.seed)
    parser.add_argument("--num_workers", type=int, default=1, help="Data loading processes")
    parser.add_argument("--num_threads", type=int, help="Threads of PyTorch (default: all)")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Pretrain an encoder."""
    logging.basicConfig(level="INFO", format="%(asctime)s (%(module)s) %(levelname)s: %(message)s")
    args = vars(get_parser().parse_args(cmd))
    if threads := args.pop("num_threads"):
        torch.set_num_threads(threads)
    names = ("epochs", "batch_size", "lr", "matrix_lr", "weight_decay", "seed")
    config = CTCConfig(**{name: args.pop(name) for name in names})
    register()
    pretrain(config=config, **args)


if __name__ == "__main__":
    run(main)
