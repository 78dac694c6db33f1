"""The crossed bootstrap against a loop, theory and simulated data."""

import numpy as np
import pytest
from scipy import stats

from espnet_smop.results.crossed import crossed, drawn_differences
from espnet_smop.results.intervals import paired


def simulate(rng, *, seeds=5, units=120, seed_spread=0.0, unit_spread=0.0, difference=0.0):
    """Return errors of A and B, (S, U), and words: recognisers that miss words by chance.

    On average over seeds and utterances, A has more errors if ``difference`` is above 0.
    """
    words = rng.integers(3, 9, units)
    hard = rng.normal(-2.0, 1.0, units)
    for_a = rng.normal(0, unit_spread, units)  # some utterances are easier for A, some for B

    def errors(shift):
        logits = hard + shift + rng.normal(0, seed_spread, (seeds, 1))
        return rng.binomial(words, 1 / (1 + np.exp(-logits)))

    return errors(for_a + difference), errors(-for_a), words


def test_draws_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    a, b, words = simulate(rng, seeds=4, units=7, seed_spread=0.5)
    seed_picks, unit_picks = rng.integers(0, 4, (20, 4)), rng.integers(0, 7, (20, 7))
    expected = []
    for seeds, units in zip(seed_picks, unit_picks, strict=True):
        row = []
        for of_seeds, of_units in ((seeds, range(7)), (range(4), units), (seeds, units)):
            errors = sum(int(a[s, u]) - int(b[s, u]) for s in of_seeds for u in of_units)
            row.append(errors / sum(int(words[u]) for _ in range(4) for u in of_units))
        expected.append(row)

    def counts(picks, n):
        return np.stack([np.bincount(pick, minlength=n) for pick in picks])

    found = drawn_differences(a - b, words, counts(seed_picks, 4), counts(unit_picks, 7))
    np.testing.assert_allclose(found, np.transpose(expected), rtol=1e-12)


def test_seeds_that_differ_alike_on_all_utterances_give_the_paired_t_test():
    # One word an utterance, whose difference depends on the seed alone.
    by_seed = np.array([0, 1, 1, 2, 3])
    a, b = np.repeat(by_seed[:, None], 50, 1), np.zeros((5, 50), int)
    found = crossed(a, b, np.ones(50, int), num_samples=40_000)
    theory = stats.ttest_1samp(by_seed, 0)
    low, high = theory.confidence_interval()
    assert found.difference == pytest.approx(by_seed.mean())
    assert found.p_value == pytest.approx(theory.pvalue, rel=0.1)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05)


def test_seeds_that_are_all_alike_give_the_paired_test_over_utterances():
    rng = np.random.default_rng(1)
    a, b, words = simulate(rng, seeds=1, units=400, difference=0.08)
    many = crossed(np.repeat(a, 5, 0), np.repeat(b, 5, 0), words)
    one = paired(a[0], b[0], words)
    assert crossed(a, b, words) == one
    assert many.difference == one.difference
    assert (many.low, many.high) == pytest.approx((one.low, one.high), abs=0.002)
    assert many.p_value == pytest.approx(one.p_value, abs=0.01)
    assert 0.001 < one.p_value < 0.5


@pytest.mark.parametrize(("seed_spread", "unit_spread"), [(0.3, 0.0), (0.1, 0.5), (0.0, 0.0)])
def test_it_finds_a_difference_where_there_is_none_in_5_percent(seed_spread, unit_spread):
    rng = np.random.default_rng(2)
    trials, found = 250, 0
    for _ in range(trials):
        data = simulate(rng, seed_spread=seed_spread, unit_spread=unit_spread)
        found += crossed(*data, num_samples=500).p_value < 0.05
    # Beyond these ends is 1 in 2,000 binomial draws each.
    low, high = stats.binom.ppf([0.0005, 0.9995], trials, 0.05)
    assert found <= high
    if seed_spread or unit_spread:  # it is careful where neither matters
        assert low <= found


def test_it_agrees_with_the_t_test_over_seeds_where_seeds_are_what_varies():
    rng = np.random.default_rng(3)
    logs = []
    for _ in range(30):
        a, b, words = simulate(rng, units=400, seed_spread=0.3, difference=0.5)
        over_seeds = stats.ttest_rel(a.sum(1), b.sum(1)).pvalue
        logs.append(np.log10([crossed(a, b, words, num_samples=2000).p_value, over_seeds]))
    logs = np.array(logs)
    assert np.ptp(logs[:, 1]) > 1  # p values of several orders of magnitude
    assert np.abs(logs[:, 0] - logs[:, 1]).max() < 1
    assert np.corrcoef(logs.T)[0, 1] > 0.9


def test_drawing_speakers_is_drawing_their_sums():
    rng = np.random.default_rng(4)
    a, b, words = simulate(rng, units=30, difference=0.5)
    speakers = np.arange(30) % 6
    sums = [np.stack([x[..., speakers == s].sum(-1) for s in range(6)], -1) for x in (a, b, words)]
    assert crossed(a, b, words, groups=list(speakers)) == crossed(*sums)


def test_no_difference_at_all_and_errors():
    same = np.ones((3, 4), int)
    assert crossed(same, same, [2, 2, 2, 2]) == (0, 0, 0, 1)
    assert crossed(same + 1, same, [2, 2, 2, 2]) == (0.5, 0.5, 0.5, 0)
    with pytest.raises(ValueError, match="3 seeds of A and 2 of B"):
        crossed(same, same[:2], [2, 2, 2, 2])
    with pytest.raises(ValueError, match="differ in length"):
        crossed(same, same, [2, 2])
