"""Slow random movement."""

import numpy as np


def drift(frames: int, width: int, memory: int, rng: np.random.Generator) -> np.ndarray:
    """Return unit-variance noise ``(frames, width)`` that is smooth over ``memory`` frames."""
    kernel = np.hanning(memory + 2)[1:-1]
    kernel /= np.sqrt((kernel**2).sum())
    white = rng.normal(size=(width, frames + memory - 1))
    return np.stack([np.convolve(row, kernel, "valid") for row in white], 1)
