"""Babble noise: many training speakers at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from espnet_smop.corpus.datadir import DataDirError
from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.fileio.table import read_table
from espnet_smop.modality import AUDIO, SAMPLE_RATE

_PEAK = 0.9


def mix_babble(
    audio: Mapping[str, str],
    utt2spk: Mapping[str, str],
    *,
    num_utts: int = 30,
    seconds: float = 120.0,
    seed: int = 0,
) -> np.ndarray:
    """Mix babble from ``num_utts`` utterances at a time.

    It is the sum of ``num_utts`` streams. Each stream is utterances in random order, scaled to
    the same power, and starts at a random position of its first utterance, so that streams do not
    start and end together and the noise does not repeat. Streams start with different speakers if
    there are enough.

    Args:
        audio: utterance → audio file at 16 kHz, of a training set.
        utt2spk: utterance → speaker.
        num_utts: utterances at a time; published work mixes 30.
        seconds: length of the noise.
        seed: the same seed on the same data gives the same noise.

    Returns:
        float32 ``(samples,)`` at 16 kHz, peak 0.9.

    Raises:
        DataDirError: fewer utterances than ``num_utts``, or audio of another rate.
    """
    if len(audio) < num_utts:
        raise DataDirError(
            f"babble of {num_utts} utterances needs as many, the training set has {len(audio)}; "
            "give a larger set or a smaller --num_utts (the driver's --babble_utts)"
        )
    random = np.random.default_rng(seed)
    length = round(seconds * SAMPLE_RATE)
    order = _speakers_apart(sorted(audio), utt2spk, random)
    mix = np.zeros(length, np.float64)
    position = 0
    for _ in range(num_utts):
        filled = 0
        skip = random.random()
        while filled < length:
            samples = _read(audio[order[position % len(order)]])
            position += 1
            if filled == 0:
                samples = samples[int(skip * len(samples)) :]
            samples = samples[: length - filled]
            mix[filled : filled + len(samples)] += samples
            filled += len(samples)
    return (mix * (_PEAK / np.abs(mix).max())).astype(np.float32)


def write_babble(data_dir: Path, out: Path, **options: Any) -> None:
    """Mix babble from a formatted data directory into a 16 kHz mono WAV file.

    Args:
        data_dir: training set of stage 4.
        out: the file, written atomically.
        options: of `mix_babble`.
    """
    noise = mix_babble(
        read_table(data_dir / AUDIO.scp), read_table(data_dir / "utt2spk"), **options
    )
    with atomic_write(out, "wb") as file:
        soundfile.write(file, noise, SAMPLE_RATE, format="WAV", subtype="PCM_16")


def _speakers_apart(
    utterances: list[str], utt2spk: Mapping[str, str], random: np.random.Generator
) -> list[str]:
    """Shuffle utterances so that each speaker's are as far apart as possible."""
    turns: dict[str, int] = {}
    keyed = []
    for index in random.permutation(len(utterances)):
        speaker = utt2spk[utterances[index]]
        turns[speaker] = turns.get(speaker, 0) + 1
        keyed.append((turns[speaker], random.random(), utterances[index]))
    return [utterance for _, _, utterance in sorted(keyed)]


def _read(path: str) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float64")
    if rate != SAMPLE_RATE:
        raise DataDirError(f"{path}: {rate} Hz instead of {SAMPLE_RATE}; run stage 3 first")
    power = np.sqrt((samples**2).mean())
    return samples / power if power > 0 else samples
