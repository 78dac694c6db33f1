"""From dry synthetic speech to a recording in a room."""

import numpy as np

from talking_face.difficulty import Difficulty
from talking_face.speakers import Room
from talking_face.speech import SAMPLE_RATE


def record(
    samples: np.ndarray, room: Room, difficulty: Difficulty, rng: np.random.Generator
) -> np.ndarray:
    """Return float32 ``(samples,)``: with reverberation, the microphone's tilt and its noise."""
    # A room's echo is noise that falls by 60 dB within the reverberation time.
    length = int(room.time * SAMPLE_RATE)
    echo = rng.normal(size=length) * 10 ** (-3 * np.arange(length) / length)
    echo[0] = 0
    echo *= np.sqrt(difficulty.room_level / (echo**2).sum())
    echo[0] = 1
    size = 1 << (len(samples) + length - 1).bit_length()
    heard = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(echo, size), size)
    heard = heard[: len(samples)]
    heard[1:] -= room.tilt * heard[:-1]

    level = np.sqrt((heard**2).mean())
    snr = rng.uniform(*difficulty.snr)
    heard += rng.normal(size=len(heard)) * level * 10 ** (-snr / 20)
    loudness = 0.08 * np.exp(rng.normal(0, 0.3))  # RMS of full scale
    return np.clip(heard * (loudness / level), -1, 1).astype(np.float32)
