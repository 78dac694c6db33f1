"""Rooms and noises of the `espnet` package, to simulate other recording conditions."""

import functools
import io
import tarfile
from pathlib import Path

import espnet2
import numpy as np
import soundfile
from scipy.signal import fftconvolve

from espnet_smop.modality import SAMPLE_RATE
from espnet_smop.train.noise import mix

_ARCHIVE = Path(espnet2.__file__).parents[1] / "egs3/mini_an4/esp2_asr/downloads.tar.gz"


def distort(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return float32 ``(samples,)`` in a room, with noise of 5 to 20 dB, or both."""
    rooms, noises = _recordings()
    kind = rng.integers(3)
    if kind != 0:
        samples = reverberate(samples, rooms[rng.integers(len(rooms))])
    if kind != 1:
        noise = noises[rng.integers(len(noises))]
        start = rng.integers(len(noise))
        stretch = np.take(noise, np.arange(start, start + len(samples)), mode="wrap")
        samples = mix(samples, stretch, rng.uniform(5, 20))
    return (samples / max(1.0, float(np.abs(samples).max()))).astype(np.float32)


def reverberate(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Convolve with a room's impulse response.

    The direct sound keeps its time, and the signal its energy.
    """
    direct = int(np.abs(response).argmax())
    wet = fftconvolve(samples, response[direct:])[: len(samples)]
    energy = np.sqrt(np.sum(samples**2) / max(np.sum(wet**2), 1e-12))
    return (wet * energy).astype(np.float32)


@functools.cache
def _recordings() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return impulse responses and noises, float32 at 16 kHz."""
    found: dict[str, list[np.ndarray]] = {"rirs": [], "noise": []}
    with tarfile.open(_ARCHIVE) as archive:
        for member in sorted(archive.getmembers(), key=lambda m: m.name):
            kind = Path(member.name).parent.name
            if kind in found and member.name.endswith(".wav"):
                data = io.BytesIO(archive.extractfile(member).read())
                samples, rate = soundfile.read(data, dtype="float32", always_2d=True)
                if rate != SAMPLE_RATE:
                    raise ValueError(f"{member.name} of {_ARCHIVE} is at {rate} Hz")
                found[kind].append(samples[:, 0])
    if not all(found.values()):
        raise FileNotFoundError(f"{_ARCHIVE} has no rirs or no noise: install espnet 202611")
    return found["rirs"], found["noise"]
