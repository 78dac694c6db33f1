"""Confidence intervals and significance of error rates by the bootstrap.

A test set is a sample: another one of as many utterances would give another error rate. The
bootstrap draws such sets from the one at hand, with replacement (Bisani and Ney, "Bootstrap
estimates for confidence intervals in ASR performance evaluation", ICASSP 2004). Utterances are
drawn, or whole speakers: utterances of a speaker are easy or hard together, so that drawing
speakers is more honest where there are many (say 20), and worthless where there are three.

Example::

    low, high = interval(errors=[1, 0, 2], words=[10, 8, 9])
    comparison = paired(errors_a, errors_b, words)   # the same utterances in the same order
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np


class Comparison(NamedTuple):
    """How the error rate of system A differs from that of B on the same utterances.

    Attributes:
        difference: rate of A minus rate of B.
        low: lower end of the difference's interval.
        high: upper end.
        p_value: two-sided; twice the share of drawn sets on which the difference has not the
            sign that it has on the whole set (ties count), at most 1.
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
    level: float = 0.95,
    num_samples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the ends of the percentile interval of ``sum(errors) / sum(words)``.

    Args:
        errors: errors of each utterance.
        words: reference words of each utterance.
        groups: speaker of each utterance, to draw speakers; None draws utterances.
        level: share of drawn sets whose rate lies in the interval.
        num_samples: number of drawn sets.
        seed: of the draws.

    Raises:
        ValueError: lengths differ, or there are no utterances or no words.
    """
    totals = _totals([errors, words], groups)
    drawn = _draw(totals, num_samples, seed)
    return _quantiles(drawn[:, 0] / drawn[:, 1], level)


def paired(
    errors_a: Sequence[int],
    errors_b: Sequence[int],
    words: Sequence[int],
    *,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    num_samples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compare two systems on the same utterances; arguments as for :func:`interval`."""
    totals = _totals([errors_a, errors_b, words], groups)
    whole = totals.sum(axis=0)
    difference = (whole[0] - whole[1]) / whole[2]
    drawn = _draw(totals, num_samples, seed)
    differences = (drawn[:, 0] - drawn[:, 1]) / drawn[:, 2]
    against = np.mean(differences * np.sign(difference) <= 0)
    low, high = _quantiles(differences, level)
    return Comparison(float(difference), low, high, min(1.0, 2 * float(against)))


def _totals(columns: Sequence[Sequence[int]], groups: Sequence[Hashable] | None) -> np.ndarray:
    """Return an array (units, columns): sums over each group, or the utterances themselves."""
    if len({len(c) for c in columns} | ({len(groups)} if groups is not None else set())) != 1:
        raise ValueError("errors, words and groups differ in length")
    table = np.asarray(columns, dtype=np.int64).T
    if groups is not None:
        members: dict[Hashable, int] = {}
        index = [members.setdefault(group, len(members)) for group in groups]
        sums = np.zeros((len(members), table.shape[1]), dtype=np.int64)
        np.add.at(sums, index, table)
        table = sums
    if len(table) == 0 or table[:, -1].sum() == 0:
        raise ValueError("no utterances, or no reference words")
    return table


def _draw(totals: np.ndarray, num_samples: int, seed: int) -> np.ndarray:
    """Return the column sums of drawn sets, (num_samples, columns)."""
    rng = np.random.default_rng(seed)
    units = len(totals)
    out = np.empty((num_samples, totals.shape[1]), dtype=np.int64)
    block = max(1, 2_000_000 // units)  # bounds the memory for indices
    for start in range(0, num_samples, block):
        drawn = rng.integers(units, size=(min(block, num_samples - start), units))
        out[start : start + block] = totals[drawn].sum(axis=1)
    return out[out[:, -1] > 0]  # a set without words has no rate


def _quantiles(values: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
