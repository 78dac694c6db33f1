"""Cut long recordings at pauses."""

import itertools

import numpy as np

from espnet_smop.corpus.media import SAMPLES_PER_FRAME
from espnet_smop.modality import FRAME_RATE

_PAUSE_FRAMES = 10  # 0.4 s: shorter gaps occur within words and phrases
# Fractions of the limit: each cut can be chosen from its second half; the last piece may be
# shorter, but not a fragment of a word.
_EARLIEST = 0.5
_LAST = 0.1


def cut_at_pauses(
    samples: np.ndarray | None, frames: int, *, max_seconds: float
) -> list[tuple[int, int]]:
    """Cut a recording into pieces of at most ``max_seconds``.

    Each cut is where the sound is quietest over 0.4 s, in the second half of the longest allowed
    piece; the last piece keeps at least a tenth of that length. Without sound, pieces have equal
    lengths.

    Args:
        samples: waveform ``(N,)`` at 16 kHz, or None.
        frames: length of the recording in frames of 1/25 s.
        max_seconds: longest piece.

    Returns:
        (first frame, end frame) of each piece, in order, without gaps.
    """
    longest = int(max_seconds * FRAME_RATE)
    if longest < 2:
        raise ValueError(f"max_seconds is {max_seconds}, expected {2 / FRAME_RATE} or more")
    if frames <= longest:
        return [(0, frames)]
    if samples is None:
        count = -(-frames // longest)
        cuts = [round(i * frames / count) for i in range(count + 1)]
        return list(itertools.pairwise(cuts))
    loudness = _loudness(samples, frames)
    pieces, start = [], 0
    while frames - start > longest:
        earliest = start + max(1, int(longest * _EARLIEST))
        latest = min(start + longest, frames - max(1, int(longest * _LAST)))
        around = loudness[earliest : latest + 1]
        # The last of equal minima: the fewer pieces, the more context each has.
        cut = earliest + len(around) - 1 - int(np.argmin(around[::-1]))
        pieces.append((start, cut))
        start = cut
    return [*pieces, (start, frames)]


def _loudness(samples: np.ndarray, frames: int) -> np.ndarray:
    """Return ``(frames + 1,)``: mean power in the 0.4 s around the start of each frame."""
    needed = frames * SAMPLES_PER_FRAME
    padded = np.pad(samples[:needed], (0, max(0, needed - len(samples))))
    # float64 for the sums alone: recordings of hours are large enough in float32.
    power = np.square(padded).reshape(frames, SAMPLES_PER_FRAME).mean(axis=1, dtype=np.float64)
    sums = np.concatenate([[0.0], power.cumsum()])
    at = np.arange(frames + 1)
    low = np.maximum(at - _PAUSE_FRAMES // 2, 0)
    high = np.minimum(at + _PAUSE_FRAMES // 2, frames)
    return (sums[high] - sums[low]) / (high - low)
