"""Maps timed phones to mouth movements.

A phone belongs to a viseme class (Fisher, 1968): the phones of a class look alike. A class has a
target for every lip parameter and a dominance, the weight of that target. The movement is the
dominance-weighted mean of neighbouring targets (Cohen and Massaro, 1993): a /t/
between rounded vowels is rounded, a /p/ closes the lips between any.
"""

from dataclasses import dataclass

import numpy as np

from talking_face.difficulty import Difficulty
from talking_face.drift import drift
from talking_face.speech import Segment

FRAME_RATE = 25
_EXPOSURE = 4  # moments averaged into one frame

OPENING, WIDTH, ROUNDING, TUCK, PRESS, TEETH, TONGUE = range(7)
PARAMETERS = ("opening", "width", "rounding", "tuck", "press", "teeth", "tongue")
"""What a mouth does: the gap between the lips (0–1), the corners' spread (−1–1), rounding and
protrusion (0–1), the lower lip under the upper teeth (0–1), lips pressed together (0–1), teeth
closed (0–1), the tongue's tip up (0–1)."""

# Per class: targets, and dominances, in the order of PARAMETERS.
_CLASSES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    # consonants
    "P": ((0.00, 0.00, 0.00, 0, 1, 0.0, 0.0), (3.0, 0.3, 0.3, 3, 4, 2, 2)),
    "F": ((0.10, 0.05, 0.00, 1, 0, 0.1, 0.0), (3.0, 0.3, 0.5, 4, 3, 3, 3)),
    "TH": ((0.26, 0.10, 0.00, 0, 0, 0.2, 1.0), (2.0, 0.3, 0.4, 3, 3, 2, 4)),
    "T": ((0.20, 0.15, 0.00, 0, 0, 0.7, 0.4), (1.0, 0.2, 0.2, 3, 3, 2, 1)),
    "CH": ((0.24, -0.1, 0.55, 0, 0, 0.9, 0.1), (2.0, 0.5, 1.5, 3, 3, 3, 1)),
    "R": ((0.24, -0.1, 0.45, 0, 0, 0.3, 0.2), (1.0, 0.5, 1.0, 3, 3, 1, 1)),
    "W": ((0.10, -0.5, 1.00, 0, 0, 0.0, 0.0), (3.0, 1.5, 3.0, 3, 3, 1, 1)),
    "K": ((0.32, 0.00, 0.00, 0, 0, 0.1, 0.0), (0.3, 0.1, 0.1, 3, 3, 0.5, 0.5)),
    # vowels
    "IY": ((0.28, 0.90, 0.00, 0, 0, 0.5, 0.1), (1.5, 2.0, 1.5, 3, 3, 1, 1)),
    "IH": ((0.36, 0.45, 0.00, 0, 0, 0.3, 0.0), (1.2, 1.2, 1.2, 3, 3, 1, 1)),
    "EH": ((0.58, 0.35, 0.00, 0, 0, 0.1, 0.0), (1.5, 1.2, 1.2, 3, 3, 1, 1)),
    "AE": ((0.80, 0.40, 0.00, 0, 0, 0.0, 0.0), (1.8, 1.2, 1.2, 3, 3, 1, 1)),
    "AA": ((1.00, -0.05, 0.10, 0, 0, 0.0, 0.0), (2.0, 1.2, 1.2, 3, 3, 1, 1)),
    "AO": ((0.62, -0.30, 0.65, 0, 0, 0.0, 0.0), (1.8, 1.5, 2.0, 3, 3, 1, 1)),
    "UW": ((0.20, -0.50, 1.00, 0, 0, 0.0, 0.0), (1.8, 2.0, 2.5, 3, 3, 1, 1)),
    "AX": ((0.34, 0.05, 0.05, 0, 0, 0.1, 0.0), (0.7, 0.4, 0.5, 3, 3, 1, 1)),
    # silence
    "REST": ((0.04, 0.00, 0.00, 0, 0, 0.0, 0.0), (0.8, 0.8, 0.8, 3, 2, 1, 1)),
}

# eSpeak NG's phonemes to classes; diphthongs move through two.
_PHONES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("p", "b", "m"), ("P",)),
    **dict.fromkeys(("f", "v"), ("F",)),
    **dict.fromkeys(("T", "D"), ("TH",)),
    **dict.fromkeys(("t", "t#", "d", "n", "l", "s", "z", "?"), ("T",)),
    **dict.fromkeys(("S", "Z", "tS", "dZ"), ("CH",)),
    **dict.fromkeys(("r", "r-"), ("R",)),
    **dict.fromkeys(("w",), ("W",)),
    **dict.fromkeys(("k", "g", "N", "h"), ("K",)),
    **dict.fromkeys(("i:", "i", "j", ";"), ("IY",)),
    **dict.fromkeys(("I", "I2", "I#"), ("IH",)),
    **dict.fromkeys(("E", "e"), ("EH",)),
    **dict.fromkeys(("a", "aa"), ("AE",)),
    **dict.fromkeys(("A:", "A@", "A", "0", "O2", "V"), ("AA",)),
    **dict.fromkeys(("O:", "O", "O@", "o@", "o:"), ("AO",)),
    **dict.fromkeys(("u:", "u", "U"), ("UW",)),
    **dict.fromkeys(("@", "@2", "@5", "a#", "3", "3:", "L"), ("AX",)),
    **dict.fromkeys(("eI", "e:"), ("EH", "IY")),
    **dict.fromkeys(("aI", "aI2"), ("AA", "IY")),
    "OI": ("AO", "IY"),
    "aU": ("AA", "UW"),
    **dict.fromkeys(("oU", "o"), ("AO", "UW")),
    **dict.fromkeys(("i@", "i@3"), ("IY", "AX")),
    **dict.fromkeys(("e@",), ("EH", "AX")),
    "U@": ("UW", "AX"),
}


@dataclass(frozen=True, kw_only=True)
class Articulation:
    """How a speaker moves the lips.

    Attributes:
        amplitude: Size of the movements.
        coarticulation: Reach of a phone beyond its own time, seconds.
        look_ahead: Lead of the lips over the sound, seconds.
    """

    amplitude: float
    coarticulation: float
    look_ahead: float


def visemes(phone: str, difficulty: Difficulty) -> tuple[str, ...]:
    """Return the classes that eSpeak NG's ``phone`` moves through."""
    if phone not in _PHONES:
        raise ValueError(f"no lip shape for eSpeak NG's phoneme {phone!r}: add it to lips.py")
    merge = dict(difficulty.merge)
    return tuple(merge.get(name, name) for name in _PHONES[phone])


def movement(
    phones: list[Segment],
    frames: int,
    articulation: Articulation,
    difficulty: Difficulty,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the lip parameters ``(frames, 7)`` of an utterance, in the order of PARAMETERS."""
    names: list[str] = []
    starts: list[float] = []
    ends: list[float] = []
    for phone in phones:
        classes = visemes(phone.label, difficulty)
        step = (phone.end - phone.start) / len(classes)
        names += classes
        starts += [phone.start + i * step for i in range(len(classes))]
        ends += [phone.start + (i + 1) * step for i in range(len(classes))]
    names = ["REST", *names, "REST"]
    starts = [0.0, *starts, ends[-1] + 0.05]
    ends = [max(starts[1] - 0.05, 0.0), *ends, max(frames / FRAME_RATE, ends[-1] + 0.1)]

    target = np.array([_CLASSES[name][0] for name in names])  # (phones, 7)
    dominance = np.array([_CLASSES[name][1] for name in names])
    scale = np.exp(rng.normal(0, difficulty.phone_amplitude_spread, (len(names), 1)))
    target[:, :ROUNDING] *= articulation.amplitude * scale
    target[:, ROUNDING] *= np.minimum(articulation.amplitude * scale[:, 0], 1.2)

    begin, end = np.array(starts), np.array(ends)
    lead = articulation.look_ahead + rng.normal(0, difficulty.clip_offset)
    centre = (begin + end) / 2 - lead + rng.normal(0, difficulty.phone_timing, len(names))
    reach = (end - begin) / 2 + articulation.coarticulation

    moments = (np.arange(frames * _EXPOSURE) + 0.5) / (FRAME_RATE * _EXPOSURE)
    distance = (moments[:, None] - centre) / reach  # (moments, phones)
    weight = np.exp(-np.clip(distance**2, 0, 60))[:, :, None] * dominance
    path = (weight * target).sum(1) / weight.sum(1)  # (moments, 7)

    # Whatever the neighbours: lips that form a /p/ do meet, for about 50 ms.
    closing = np.array([name == "P" for name in names])
    if closing.any():
        near = np.abs(moments[:, None] - centre[closing]).min(1)
        path[:, OPENING] *= 1 - np.exp(-((near / 0.05) ** 4))

    path = path.reshape(frames, _EXPOSURE, -1).mean(1)
    jitter = drift(frames, path.shape[1], 7, rng) * difficulty.shape_jitter
    jitter[:, OPENING] *= np.minimum(path[:, OPENING] / 0.2, 1)  # closed lips stay closed
    jitter[:, TUCK:] *= np.minimum(path[:, TUCK:] / 0.2, 1)
    path += jitter
    path[:, OPENING] = np.clip(path[:, OPENING], 0, 1.5)
    path[:, WIDTH] = np.clip(path[:, WIDTH], -1, 1.4)
    path[:, ROUNDING:] = np.clip(path[:, ROUNDING:], 0, 1.2)
    return path
