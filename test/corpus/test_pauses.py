import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_smop.corpus.pauses import cut_at_pauses


def speech_with_pauses(seconds, pauses):
    rng = np.random.default_rng(0)
    samples = rng.normal(size=int(seconds * 16000)).astype(np.float32) * 0.1
    for begin, end in pauses:
        samples[int(begin * 16000) : int(end * 16000)] *= 0.01
    return samples


def test_cuts_lie_in_the_pauses():
    samples = speech_with_pauses(30, [(4, 4.6), (8, 8.8), (17, 17.7), (26, 26.5)])
    pieces = cut_at_pauses(samples, 750, max_seconds=10)
    cuts = [end / 25 for _, end in pieces[:-1]]
    assert [any(b <= c <= e for b, e in [(8, 8.8), (17, 17.7), (26, 26.5)]) for c in cuts] == [
        True
    ] * len(cuts)
    assert len(pieces) == 4 and pieces[-1][1] == 750


def test_a_click_in_a_pause_does_not_matter_and_a_gap_within_a_word_is_no_pause():
    samples = speech_with_pauses(12, [(6, 6.08), (8, 8.6)])
    [(_, cut), _] = cut_at_pauses(samples, 300, max_seconds=10)
    assert 8 <= cut / 25 <= 8.6


def test_short_recordings_stay_whole():
    assert cut_at_pauses(np.zeros(1), 250, max_seconds=10) == [(0, 250)]
    assert cut_at_pauses(None, 1, max_seconds=10) == [(0, 1)]


def test_without_sound_pieces_are_of_equal_length():
    assert cut_at_pauses(None, 600, max_seconds=10) == [(0, 200), (200, 400), (400, 600)]


@given(
    st.integers(1, 2000), st.floats(0.2, 30), st.integers(0, 2**31), st.booleans(), st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_pieces_are_contiguous_and_short_enough(frames, seconds, seed, silent, short):
    rng = np.random.default_rng(seed)
    samples = np.zeros(frames * 640) if silent else rng.normal(size=frames * 640)
    if short:
        samples = samples[: len(samples) // 2]
    pieces = cut_at_pauses(samples, frames, max_seconds=seconds)
    assert pieces[0][0] == 0 and pieces[-1][1] == frames
    assert all(a[1] == b[0] for a, b in itertools.pairwise(pieces))
    assert all(0 < end - start <= int(seconds * 25) for start, end in pieces)


def test_the_last_piece_is_no_fragment():
    assert cut_at_pauses(np.zeros(251 * 640), 251, max_seconds=10) == [(0, 226), (226, 251)]


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"max_seconds is 0\.01, expected 0\.08 or more"):
        cut_at_pauses(None, 10, max_seconds=0.01)
