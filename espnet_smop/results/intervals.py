"""Confidence intervals and paired comparison of error rates by the bootstrap.

A test set is a sample: another one of the same size would give another error rate. The bootstrap
draws such sets from the given one, with replacement (Bisani and Ney, "Bootstrap estimates for
confidence intervals in ASR performance evaluation", ICASSP 2004). It draws utterances, or whole
speakers: the utterances of a speaker are easy or hard together, so drawing speakers is more
realistic with many speakers (say 20), and meaningless with three.

Example::

    low, high = interval(errors=[1, 0, 2], words=[10, 8, 9])
    comparison = paired(errors_a, errors_b, words)   # the same utterances in the same order
"""

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np

UNITS = ("utterance", "speaker")
"""Resampling units of the bootstrap; the first is the default of every command."""
UNIT_HELP = "Resampling unit of the bootstrap; speaker is more realistic with 20 or more speakers"


class Comparison(NamedTuple):
    """How the error rate of system A differs from that of B on the same utterances.

    Attributes:
        difference: rate of A minus rate of B.
        low: lower end of the difference's 95 % interval.
        high: upper end.
        p_value: two-sided; twice the share of drawn sets on which the difference does not have
            the sign that it has on the whole set (ties count), at most 1.
    """

    difference: float
    low: float
    high: float
    p_value: float


def interval(
    errors: Sequence[int],
    words: Sequence[int],
    *,
    groups: Sequence[Hashable] | None = None,
    num_samples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the ends of the 95 % percentile interval of ``sum(errors) / sum(words)``.

    Args:
        errors: errors of each utterance.
        words: reference words of each utterance.
        groups: speaker of each utterance, to draw speakers; None draws utterances.
        num_samples: number of drawn sets.
        seed: of the random draws.

    Raises:
        ValueError: lengths differ, or there are no utterances or no words.
    """
    sums = totals([errors, words], groups)
    drawn = _draw(sums, lambda e, w, axis: e.sum(axis) / w.sum(axis), num_samples, seed)
    return _quantiles(drawn)


def paired(
    errors_a: Sequence[int],
    errors_b: Sequence[int],
    words: Sequence[int],
    *,
    groups: Sequence[Hashable] | None = None,
    num_samples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare two systems on the same utterances; arguments as for :func:`interval`."""
    sums = totals([errors_a, errors_b, words], groups)

    def difference(a: np.ndarray, b: np.ndarray, w: np.ndarray, axis: int) -> np.ndarray:
        return (a.sum(axis) - b.sum(axis)) / w.sum(axis)

    observed = float(difference(*sums, axis=-1))
    drawn = _draw(sums, difference, num_samples, seed)
    against = float(np.mean(drawn * np.sign(observed) <= 0))
    return Comparison(observed, *_quantiles(drawn), min(1.0, 2 * against))


def totals(columns: Sequence[Sequence[int]], groups: Sequence[Hashable] | None) -> np.ndarray:
    """Return an array ``(columns, units)``: sums over each group, or the utterances themselves.

    The last column is the reference words.

    Raises:
        ValueError: lengths differ, or there are no utterances or no words.
    """
    if len({len(c) for c in columns} | ({len(groups)} if groups is not None else set())) != 1:
        raise ValueError("errors, words and groups differ in length")
    table = np.asarray(columns, dtype=np.int64)
    if groups is not None:
        members: dict[Hashable, int] = {}
        index = [members.setdefault(group, len(members)) for group in groups]
        sums = np.zeros((len(table), len(members)), dtype=np.int64)
        np.add.at(sums.T, index, table.T)
        table = sums
    if table[-1].sum() == 0:
        raise ValueError("no utterances, or no reference words")
    return table


def _draw(
    totals: np.ndarray, statistic: Callable[..., np.ndarray], num_samples: int, seed: int
) -> np.ndarray:
    """Return the statistic of each drawn set."""
    from scipy import stats  # takes a second, which merging and scoring need not wait for

    units = totals.shape[1]
    if units == 1:  # each drawn set is the same, which scipy refuses
        return statistic(*totals, axis=-1)[None]
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        # A set without words has no rate, and is left out below.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        drawn = stats.bootstrap(
            tuple(totals),
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=num_samples,
            method="percentile",
            batch=max(1, 2_000_000 // units),  # bounds the memory for indices
            rng=seed,
        ).bootstrap_distribution
    return drawn[np.isfinite(drawn)]


def _quantiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
