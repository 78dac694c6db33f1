"""Augmentation of mouth crops and waveforms, and its test-time counterpart.

Source: Llama-SMoP, Section 3.1 (horizontal flip, random crop and adaptive time masking of the
video, adaptive time masking of the audio), with the mask widths and densities common on LRS3.
"""

import numpy as np

CROP_SIZE = 88
"""Side of the square that AV-HuBERT takes, in pixels."""


def crop(video: np.ndarray, *, size: int = CROP_SIZE, random: bool) -> np.ndarray:
    """Crop the same square from all frames.

    Args:
        video: ``(T, H, W)``.
        size: side of the square in pixels.
        random: crop at a random position (training) or at the centre (test).

    Raises:
        ValueError: a frame is smaller than the square, or too large for a mouth crop.
    """
    height, width = video.shape[1:]
    if height < size or width < size:
        raise ValueError(
            f"video frames are {width}x{height} pixels, smaller than the {size}x{size} crop: "
            "prepare mouth crops of 96x96 (stage 3)"
        )
    if min(height, width) >= 2 * size:
        raise ValueError(
            f"video frames of {width}x{height} pixels are whole pictures, not mouth crops: prepare "
            "crops of 96x96 (stage 3)"
        )
    if random:
        top = np.random.randint(0, height - size + 1)
        left = np.random.randint(0, width - size + 1)
    else:
        top, left = (height - size) // 2, (width - size) // 2
    return video[:, top : top + size, left : left + size]


def horizontal_flip(video: np.ndarray, *, probability: float = 0.5) -> np.ndarray:
    """Mirror all frames ``(T, H, W)`` with the given probability."""
    return video[:, :, ::-1] if np.random.rand() < probability else video


def adaptive_time_mask(signal: np.ndarray, *, max_width: int, stride: int) -> np.ndarray:
    """Mask random segments; longer signals get more of them.

    One segment per ``stride`` samples, rounded up; its length, below ``max_width``, and position
    are uniformly random.

    Args:
        signal: ``(T, …)``; masked samples become 0, so mask after normalisation.
        max_width: upper bound of a segment's length, in samples or frames.
        stride: samples or frames per segment.

    Returns:
        A masked copy.
    """
    length = len(signal)
    masked = signal.copy()
    for _ in range(int((length + stride - 0.1) // stride)):
        width = np.random.randint(0, max_width)
        if width < length:
            start = np.random.randint(0, length - width)
            masked[start : start + width] = 0
    return masked
