import math

import numpy as np
import pytest

from espnet_smop.results.intervals import interval, paired


def binomial_quantile(n: int, p: float, q: float) -> int:
    """Smallest k with P(X <= k) >= q for X binomial."""
    total = 0.0
    for k in range(n + 1):
        total += math.comb(n, k) * p**k * (1 - p) ** (n - k)
        if total >= q:
            return k
    return n


@pytest.mark.parametrize(("n", "wrong"), [(50, 10), (400, 30)])
def test_interval_of_one_word_utterances_is_the_binomial_one(n, wrong):
    # The errors of a drawn set of one-word utterances are Binomial(n, wrong / n) exactly.
    errors = [1] * wrong + [0] * (n - wrong)
    low, high = interval(errors, [1] * n, num_samples=40_000)
    p = wrong / n
    assert abs(low * n - binomial_quantile(n, p, 0.025)) <= 1
    assert abs(high * n - binomial_quantile(n, p, 0.975)) <= 1


def test_interval_has_no_width_when_all_units_are_alike():
    assert interval([2, 1, 3], [20, 10, 30]) == pytest.approx((0.1, 0.1))
    # Each speaker has one error in ten words, though utterances differ.
    assert interval([2, 0, 1], [10, 10, 10], groups=["a", "a", "b"]) == pytest.approx((0.1, 0.1))


def test_drawing_speakers_widens_the_interval_when_speakers_differ():
    errors = [5] * 50 + [0] * 50
    words = [10] * 100
    speakers = [k // 10 for k in range(100)]
    by_utterance = np.diff(interval(errors, words))
    by_speaker = np.diff(interval(errors, words, groups=speakers))
    # sqrt(10) times as wide: 10 independent units instead of 100
    assert by_speaker / by_utterance == pytest.approx(math.sqrt(10), rel=0.15)


def test_paired_sees_a_small_constant_difference():
    rng = np.random.default_rng(0)
    b = rng.integers(0, 4, 200)
    a = b + (np.arange(200) % 5 == 0)
    words = np.full(200, 10)
    found = paired(a, b, words)
    assert found.difference == pytest.approx(40 / 2000)
    assert found.low < found.difference < found.high
    assert found.p_value < 0.01
    # Unpaired, the intervals of A and B overlap.
    assert interval(b, words)[1] > interval(a, words)[0]


def test_paired_p_value_of_the_sign_test():
    # A differs from B on one utterance only: drawn sets lack it with probability (1 - 1/n)^n.
    n = 40
    found = paired([1] + [0] * (n - 1), [0] * n, [1] * n, num_samples=40_000)
    assert found.p_value == pytest.approx(2 * (1 - 1 / n) ** n, abs=0.02)
    assert paired([0, 1], [0, 1], [3, 3]).p_value == 1


def test_utterances_without_words_and_a_single_one():
    # Half of the drawn pairs lack the only words: they have no rate.
    assert interval([1, 0], [4, 0]) == (0.25, 0.25)
    assert interval([1], [4]) == (0.25, 0.25)
    assert paired([2], [1], [4]).p_value == 0


def test_errors_in_the_arguments():
    with pytest.raises(ValueError, match="differ in length"):
        interval([1], [1, 2])
    with pytest.raises(ValueError, match="no utterances"):
        interval([], [])
