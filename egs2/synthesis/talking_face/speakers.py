"""The people of the mini corpus: a voice, a face, a way of moving the lips, a camera."""

from dataclasses import dataclass
from zlib import crc32

import numpy as np

from talking_face.difficulty import Difficulty
from talking_face.lips import Articulation
from talking_face.speech import Voice

_ACCENTS = ("en-us", "en", "en-gb-x-rp")
_MALE = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "Andy", "Alex", "david", "edward")
_GREY = np.array([0.114, 0.587, 0.299])  # of blue, green, red
_FEMALE = ("f1", "f2", "f3", "f4", "f5", "Annie", "belinda", "linda")


@dataclass(frozen=True, kw_only=True)
class Look:
    """A face and its camera; colours are BGR, lengths canvas pixels or factors."""

    skin: tuple[int, int, int]
    lip: tuple[int, int, int]
    hair: tuple[int, int, int]
    eye: tuple[int, int, int]
    backdrop: tuple[int, int, int]
    face_width: float
    chin: float
    eye_distance: float
    nose_length: float
    mouth_width: float
    mouth_height: float  # offset of the mouth, downwards
    upper_lip: float
    lower_lip: float
    corner: float  # of the mouth at rest, downwards
    slant: float  # one corner lower than the other
    brow: float
    beard: float  # 0 none – 1 full
    moustache: float
    glasses: bool
    hair_height: float
    light: float  # from −1, left, to 1, right
    contrast: float
    camera_scale: float  # frame pixels per canvas pixel
    camera_shift: tuple[float, float]
    blur: float
    noise: float


@dataclass(frozen=True, kw_only=True)
class Room:
    """A speaker's recording conditions.

    Attributes:
        time: Reverberation time, seconds.
        tilt: First-order coefficient of the microphone.
    """

    time: float
    tilt: float


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """Everything constant over a speaker's clips."""

    name: str
    voice: Voice
    articulation: Articulation
    look: Look
    room: Room


PRETRAINING_VOICES = 28
"""Number of the first speakers, whose voices only base models are pretrained on."""
FIRST_PRETRAINER = 100
"""From this index on, speakers share those voices; faces, pitch and all else differ."""


def speaker(index: int, seed: int, difficulty: Difficulty) -> Speaker:
    """Return the ``index``-th speaker (from 0) of the corpus with this ``seed``."""
    name = f"s{index + 1:02d}"
    rng = np.random.default_rng([seed, crc32(f"speaker {name}".encode())])
    if index >= FIRST_PRETRAINER:
        index = (index - FIRST_PRETRAINER) % PRETRAINING_VOICES
    male = _is_man(index)
    # Steps of 13 spread accents and variants over the parts of the corpus, and repeat no
    # combination among the first 60 speakers.
    number = sum(_is_man(i) == male for i in range(index))
    voices = [f"{a}+{v}" for a in _ACCENTS for v in (_MALE if male else _FEMALE)]
    voice = Voice(
        name=voices[13 * number % len(voices)],
        rate=int(rng.integers(*difficulty.speech_rate, endpoint=True)),
        pitch=int(rng.integers(30, 66)),
        range=int(rng.integers(30, 66)),
    )
    articulation = Articulation(
        amplitude=difficulty.amplitude * _spread(rng, difficulty.amplitude_spread),
        coarticulation=difficulty.coarticulation * _spread(rng, difficulty.coarticulation_spread),
        look_ahead=float(rng.uniform(0, difficulty.look_ahead)),
    )
    room = Room(
        time=float(rng.uniform(*difficulty.room_time)),
        tilt=float(rng.uniform(-difficulty.tilt, difficulty.tilt)),
    )
    look = _look(rng, male, difficulty)
    return Speaker(name=name, voice=voice, articulation=articulation, look=look, room=room)


def _is_man(index: int) -> bool:
    return index % 5 in (0, 2, 3)  # of five always three


def _spread(rng: np.random.Generator, deviation: float) -> float:
    return float(np.exp(np.clip(rng.normal(0, deviation), -2 * deviation, 2 * deviation)))


def _look(rng: np.random.Generator, male: bool, difficulty: Difficulty) -> Look:
    tone = rng.uniform(0, 0.85)  # light to dark
    light, dark = np.array([180, 200, 238]), np.array([40, 62, 98])
    skin = light + (dark - light) * tone**1.2 + rng.normal(0, 6) + rng.normal(0, 3, 3)
    redness = rng.uniform(0.15, 1.0 if not male else 0.5)
    lip = skin * [0.72, 0.66, 0.86] * (1 - redness) + np.array([70, 55, 170]) * redness
    # In grey, lips are somewhat darker than the skin around them, by an individual amount.
    lip *= rng.uniform(0.62, 0.86) * (_GREY @ skin) / (_GREY @ lip)
    hairs = ((25, 28, 34), (30, 50, 80), (70, 130, 180), (150, 150, 155), (30, 60, 120))
    hair = np.array(hairs[rng.integers(len(hairs))]) + rng.normal(0, 5, 3)
    eyes = ((40, 60, 90), (120, 100, 60), (70, 110, 80))
    bearded = male and rng.random() < 0.45
    return Look(
        skin=_colour(skin),
        lip=_colour(lip),
        hair=_colour(hair),
        eye=eyes[rng.integers(len(eyes))],
        backdrop=_colour(rng.uniform(40, 190) + rng.normal(0, 18, 3)),
        face_width=float(rng.uniform(0.92, 1.08)),
        chin=float(rng.uniform(-4, 6)),
        eye_distance=float(rng.uniform(0.95, 1.05)),
        nose_length=float(rng.uniform(-2.5, 2.5)),
        mouth_width=float(rng.uniform(0.86, 1.14)),
        mouth_height=float(rng.uniform(-3, 3)),
        upper_lip=float(rng.uniform(0.65, 1.35)),
        lower_lip=float(rng.uniform(0.7, 1.3)),
        corner=float(rng.uniform(-1.5, 1.5)),
        slant=float(rng.uniform(-1.0, 1.0)),
        brow=float(rng.uniform(-3, 3)),
        beard=float(rng.uniform(0.35, 1.0)) if bearded else 0.0,
        moustache=float(rng.uniform(0.3, 1.0)) if bearded and rng.random() < 0.7 else 0.0,
        glasses=bool(rng.random() < 0.2),
        hair_height=float(rng.uniform(-6, 8)),
        light=float(rng.uniform(-1, 1)),
        contrast=float(rng.uniform(0.8, 1.15)),
        camera_scale=float(rng.uniform(0.74, 0.86)),
        camera_shift=(float(rng.uniform(-5, 5)), float(rng.uniform(-5, 5))),
        blur=float(rng.uniform(*difficulty.blur)),
        noise=float(rng.uniform(*difficulty.noise)),
    )


def _colour(values: np.ndarray) -> tuple[int, int, int]:
    blue, green, red = (int(v) for v in np.clip(values, 8, 247))
    return blue, green, red
