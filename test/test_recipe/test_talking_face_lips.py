import dataclasses

import numpy as np
import pytest

from talking_face.difficulty import Difficulty
from talking_face.lips import (
    FRAME_RATE,
    OPENING,
    ROUNDING,
    TONGUE,
    TUCK,
    WIDTH,
    Articulation,
    movement,
    visemes,
)
from talking_face.speech import Segment

STEADY = Difficulty(shape_jitter=0, clip_offset=0, phone_timing=0, phone_amplitude_spread=0)
SPEAKER = Articulation(amplitude=1.0, coarticulation=0.045, look_ahead=0.0)


def move(labels: str, difficulty: Difficulty = STEADY, each: float = 0.12) -> np.ndarray:
    """Move the lips as the phones say, each of them ``each`` seconds long, from 0.2 s on."""
    phones = [
        Segment(label, 0.2 + i * each, 0.2 + (i + 1) * each)
        for i, label in enumerate(labels.split())
    ]
    frames = round((0.4 + each * len(phones)) * FRAME_RATE)
    return movement(phones, frames, SPEAKER, difficulty, np.random.default_rng(0))


def at(path: np.ndarray, position: int, each: float = 0.12) -> np.ndarray:
    """Return the lips at the middle of a phone."""
    return path[int((0.2 + (position + 0.5) * each) * FRAME_RATE)]


@pytest.mark.parametrize(
    "mates", ["p b m", "f v", "T D", "t d n s z l", "k g h N", "S tS dZ", "i: i", "a aa"]
)
def test_phones_of_a_class_move_alike(mates):
    first, *others = mates.split()
    for other in others:
        for context in ("a {} i:", "u: {} a"):
            np.testing.assert_array_equal(move(context.format(first)), move(context.format(other)))


def test_classes_differ():
    shown = [move(f"a {phone} a") for phone in ("p", "f", "T", "t", "tS", "r", "w", "k")]
    for i, one in enumerate(shown):
        for other in shown[:i]:
            assert np.abs(one - other).max() > 0.1


def test_shapes_are_those_of_the_sounds():
    closed, tucked = at(move("a m a"), 1), at(move("a f a"), 1)
    assert closed[OPENING] < 0.1
    assert tucked[TUCK] > 0.5
    assert at(move("a T a"), 1)[TONGUE] > 0.5
    wide, spread, round_ = (at(move(f"t {v} t"), 1) for v in ("A:", "i:", "u:"))
    assert wide[OPENING] > 2 * spread[OPENING]
    assert spread[WIDTH] > 0.4 > wide[WIDTH]
    assert round_[ROUNDING] > 0.7 > wide[ROUNDING]


def test_neighbours_shape_a_consonant():
    assert at(move("u: t u:"), 1)[ROUNDING] > at(move("i: t i:"), 1)[ROUNDING] + 0.3


def test_diphthongs_move():
    path = move("p aI t", each=0.24)
    begin, end = path[int(0.48 * FRAME_RATE)], path[int(0.66 * FRAME_RATE)]
    assert begin[OPENING] > end[OPENING] + 0.2
    assert end[WIDTH] > begin[WIDTH] + 0.2


def test_lips_are_closed_before_and_after():
    path = move("a a a")
    assert path[0, OPENING] < 0.2
    assert path[-1, OPENING] < 0.2


def test_merged_classes_look_alike():
    merged = dataclasses.replace(STEADY, merge=(("TH", "T"),))
    assert visemes("T", merged) == visemes("t", merged) != visemes("T", STEADY)
    np.testing.assert_array_equal(move("a T a", merged), move("a t a", merged))


def test_bilabials_close_even_when_everything_varies():
    wild = Difficulty(shape_jitter=0.2, phone_amplitude_spread=0.4)
    assert move("A: b A: m A: p A:", wild, each=0.08)[:, OPENING].max() > 0.3
    for position in (1, 3, 5):
        centre = (0.2 + (position + 0.5) * 0.08) * FRAME_RATE
        near = move("A: b A: m A: p A:", wild, each=0.08)[int(centre) - 1 : int(centre) + 2]
        assert near[:, OPENING].min() < 0.12


def test_unknown_phones_are_named():
    with pytest.raises(ValueError, match="'Q'"):
        move("a Q")
