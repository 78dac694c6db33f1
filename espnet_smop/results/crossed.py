"""Comparison of two systems that were trained with several seeds each.

Another test set would give another difference, and so would other seeds. The crossed bootstrap
draws both, seeds and utterances, with replacement and independently of each other (the pigeonhole
bootstrap: Owen, Annals of Applied Statistics 1(2), 2007). Both systems get the same draws: they are
paired by seed and by utterance.

Its quantiles cannot be used as they are: a few seeds, drawn anew, vary too little, and what varies
with seed and utterance together is counted three times (Owen, section 3). In simulations with three
and five seeds, they found a difference where there was none in 0 to 13 % of the cases, instead of
5. Therefore the variance is computed from three bootstraps, of seeds alone, of utterances alone
and of both, by inclusion and exclusion (as Cameron, Gelbach and Miller, Journal of Business and
Economic Statistics 29(2), 2011, do for two-way clusters). Interval and p value are those of
Student's t distribution with Satterthwaite's degrees of freedom: about the number of seeds less one
where seeds are what varies, many where utterances are. In such simulations this found a difference
in 4 to 6 % of the cases where seeds or utterances matter, and in fewer where little but chance
does.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from espnet_smop.results.intervals import Comparison, paired, totals

_BATCH = 2_000_000
"""Numbers drawn at once; bounds the memory."""


def crossed(
    errors_a: Sequence[Sequence[int]],
    errors_b: Sequence[Sequence[int]],
    words: Sequence[int],
    *,
    groups: Sequence[Hashable] | None = None,
    num_samples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare two systems over the same seeds and utterances.

    With one seed it is :func:`espnet_smop.results.intervals.paired`.

    Args:
        errors_a: errors of A, ``(S, U)``: for each seed, of each utterance.
        errors_b: errors of B, ``(S, U)``, with the seeds in the same order.
        words: reference words of each utterance, ``(U,)``.
        groups: speaker of each utterance, to draw speakers; None draws utterances.
        num_samples: number of draws.
        seed: of the draws.

    Raises:
        ValueError: lengths differ, or there are no seeds, utterances or words.
    """
    from scipy import stats  # takes a second, which merging and scoring need not wait for

    seeds = len(errors_a)
    if seeds != len(errors_b) or not seeds:
        raise ValueError(f"{seeds} seeds of A and {len(errors_b)} of B: give equal numbers above 0")
    if seeds == 1:
        options = {"groups": groups, "num_samples": num_samples, "seed": seed}
        return paired(errors_a[0], errors_b[0], words, **options)
    table = totals([*errors_a, *errors_b, words], groups)
    differences, words = table[:seeds] - table[seeds:-1], table[-1]
    units = len(words)
    observed = differences.sum() / (seeds * words.sum())

    rng = np.random.default_rng(seed)
    drawn = []
    batch = max(1, _BATCH // units)
    for begin in range(0, num_samples, batch):
        size = min(batch, num_samples - begin)
        seed_draws = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size)
        unit_draws = rng.multinomial(units, np.full(units, 1 / units), size)
        drawn.append(drawn_differences(differences, words, seed_draws, unit_draws))
    of_seeds, of_units, of_both = np.nanvar(np.concatenate(drawn, axis=1), axis=1)

    # Drawing S of S seeds has (S - 1) / S of the variance; of thousands of utterances, all of it.
    few = seeds / (seeds - 1)
    joint = max(0.0, of_both - of_seeds - of_units)
    # The true variance is at least the joint part; a difference of estimates may not be.
    variance = max(few * (of_seeds - joint) + of_units, few * joint)
    if variance == 0:
        return Comparison(observed, observed, observed, float(observed == 0))
    parts = (few * of_seeds) ** 2 / (seeds - 1) + of_units**2 / max(units - 1, 1)
    t = stats.t(variance**2 / parts, scale=variance**0.5)
    low, high = (float(end) for end in observed + t.ppf([0.025, 0.975]))
    return Comparison(float(observed), low, high, float(2 * t.sf(abs(observed))))


def drawn_differences(
    differences: np.ndarray, words: np.ndarray, seed_draws: np.ndarray, unit_draws: np.ndarray
) -> np.ndarray:
    """Return the difference of rates for each of N draws, ``(3, N)``.

    The rows: the drawn seeds with all utterances, all seeds with the drawn utterances, both drawn.
    A draw without words is NaN.

    Args:
        differences: errors of A minus errors of B, ``(S, U)``.
        words: reference words, ``(U,)``.
        seed_draws: how often each seed is drawn, ``(N, S)``.
        unit_draws: how often each utterance is drawn, ``(N, U)``.
    """
    seeds = len(differences)
    with np.errstate(invalid="ignore"):  # 0 / 0 without words
        drawn_words = seeds * (unit_draws @ words)
        return np.stack([
            seed_draws @ differences.sum(1) / (seeds * words.sum()),
            unit_draws @ differences.sum(0) / drawn_words,
            # (N, U) utterances' sums over drawn seeds, weighted by their own draws
            np.einsum("nu,nu->n", seed_draws @ differences, unit_draws) / drawn_words,
        ])  # fmt: skip
