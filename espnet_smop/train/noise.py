"""Additive noise at a given signal-to-noise ratio."""

import functools
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from espnet_smop.modality import SAMPLE_RATE


def mix(speech: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Return ``speech + g · noise`` with the gain g that gives an energy ratio of ``snr`` dB.

    Args:
        speech: ``(samples,)`` float.
        noise: ``(samples,)`` float, as long as ``speech``.
        snr: signal-to-noise ratio in dB; 0 means equal energies.
    """
    speech_energy = float(np.sum(np.square(speech, dtype=np.float64)))
    noise_energy = float(np.sum(np.square(noise, dtype=np.float64)))
    if speech_energy == 0 or noise_energy == 0:
        return speech
    gain = np.sqrt(speech_energy / noise_energy) * 10 ** (-snr / 20)
    return (speech + gain * noise).astype(speech.dtype)


@functools.cache
def load(path: str) -> np.ndarray:
    """Read a noise file, float32 ``(samples,)``, resampled to 16 kHz; cached in this process.

    Raises:
        ValueError: the file is missing, is no sound file or has no samples.
    """
    if not Path(path).is_file():
        raise ValueError(f"noise file {path} does not exist (stage 7 makes babble noise)")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as e:
        raise ValueError(
            f"noise file {path}: {e.error_string.rstrip('.')}; convert it to WAV or FLAC"
        ) from None
    if len(samples) == 0:
        raise ValueError(f"noise file {path} has no samples; use another file")
    samples = samples.mean(axis=1)
    if rate != SAMPLE_RATE:
        common = math.gcd(rate, SAMPLE_RATE)
        samples = resample_poly(samples, SAMPLE_RATE // common, rate // common)
    return samples


class NoiseAdder:
    """Adds a random segment of a noise file.

    Args:
        file: a sound file; several channels are averaged.
        snr: signal-to-noise ratio in dB, or several to draw from. None adds no noise; 0 is 0 dB.
        probability: share of utterances that get noise.
        deterministic: derive segment and ratio from the utterance id, so that a noisy test set is
            the same in every run and for any batching. Otherwise they are drawn from NumPy's global
            random state (training).
        seed: changes the deterministic choice.
    """

    def __init__(
        self,
        file: str,
        *,
        snr: float | Sequence[float] | None,
        probability: float = 1.0,
        deterministic: bool = False,
        seed: int = 0,
    ):
        self.file = file
        self.snrs = [] if snr is None else [float(s) for s in np.atleast_1d(snr)]
        self.probability = probability
        self.deterministic = deterministic
        self.seed = seed

    def __call__(self, uid: str, speech: np.ndarray) -> np.ndarray:
        """Return noisy ``speech`` ``(samples,)``."""
        if not self.snrs:
            return speech
        if self.deterministic:
            digest = hashlib.sha256(f"{self.seed} {uid}".encode()).digest()
            rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        else:
            rng = np.random.default_rng(np.random.randint(2**31))
        if rng.random() >= self.probability:
            return speech
        noise = load(self.file)
        snr = self.snrs[rng.integers(len(self.snrs))]
        start = rng.integers(len(noise))
        segment = np.take(noise, np.arange(start, start + len(speech)), mode="wrap")
        return mix(speech, segment, snr)
