"""The matched-pairs test on sentence segments (MAPSSWE), as NIST's ``sc_stats`` does it.

Adjacent errors are not independent: a missed word often causes errors in its neighbours. The test
cuts utterances where both systems are right for two words in a row, treats the segments between the
cuts as independent, and tests whether the mean difference of errors over these segments is 0
(Gillick and Cox, "Some statistical issues in the comparison of speech recognition algorithms",
ICASSP 1989). It assumes a normal distribution: with fewer than about fifty segments, trust the
bootstrap instead.

It differs from ``sc_stats`` in one case: ``sc_stats`` overlooks words inserted after the last
reference word if only the second system inserts any, so its result depends on the order of systems.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from espnet_smop.results.alignment import operation

Alignment = Sequence[tuple[str, str]]
"""Aligned pairs of an utterance, as ``alignment.align`` returns them."""

BOUNDARY_WORDS = 2
"""Consecutive words that both systems must have right for a segment to end."""


class MatchedPairs(NamedTuple):
    """The result of the test.

    Attributes:
        segments: number of segments in which a system has an error.
        mean: mean over segments of A's errors minus B's.
        deviation: standard deviation of these differences.
        z: the test statistic; infinite if all differences are equal and not 0.
        p_value: two-sided.
    """

    segments: int
    mean: float
    deviation: float
    z: float
    p_value: float


def matched_pairs(a: Sequence[Alignment], b: Sequence[Alignment]) -> MatchedPairs:
    """Compare systems A and B on the same utterances in the same order.

    Raises:
        ValueError: the alignments are not of the same references.
    """
    from scipy import stats  # takes a second, which merging and scoring need not wait for

    differences = [
        errors_a - errors_b
        for one, other in zip(a, b, strict=True)
        for errors_a, errors_b in segments(one, other)
    ]
    n = len(differences)
    if n < 2:
        # One segment says nothing, whatever its errors.
        return MatchedPairs(n, float(sum(differences)), 0.0, 0.0, 1.0)
    mean, deviation = float(np.mean(differences)), float(np.std(differences, ddof=1))
    if deviation == 0:
        # No spread to compare with: a sign test remains, with n equal signs.
        z = mean * np.inf if mean else 0.0
        return MatchedPairs(n, mean, 0.0, z, stats.binomtest(n, n).pvalue if mean else 1.0)
    z = mean / (deviation / n**0.5)
    return MatchedPairs(n, mean, deviation, z, float(2 * stats.norm.sf(abs(z))))


def segments(a: Alignment, b: Alignment) -> Iterator[tuple[int, int]]:
    """Yield the errors of both systems in each segment of an utterance that has errors.

    Raises:
        ValueError: the alignments are not of the same reference.
    """
    columns_a, columns_b = _columns(a), _columns(b)
    if len(columns_a) != len(columns_b):
        raise ValueError(
            f"alignments of different references: {len(columns_a) - 1} words and "
            f"{len(columns_b) - 1} words"
        )
    errors_a = errors_b = right = 0
    for (inserted_a, wrong_a), (inserted_b, wrong_b) in zip(columns_a, columns_b, strict=True):
        if inserted_a or inserted_b:
            right = 0
        errors_a += inserted_a + wrong_a
        errors_b += inserted_b + wrong_b
        right = 0 if wrong_a or wrong_b else right + 1
        if right >= BOUNDARY_WORDS:
            if errors_a or errors_b:
                yield errors_a, errors_b
            errors_a = errors_b = 0
    if errors_a or errors_b:
        yield errors_a, errors_b


def _columns(alignment: Alignment) -> list[tuple[int, int]]:
    """Return for each reference word, and for the end, (words inserted before it, 1 if wrong)."""
    columns, inserted = [], 0
    for pair in alignment:
        kind = operation(pair)
        if kind == "I":
            inserted += 1
        else:
            columns.append((inserted, int(kind != "C")))
            inserted = 0
    return [*columns, (inserted, 0)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for multiple comparisons (Holm, 1979), in the order given.

    scipy adjusts for the false discovery rate only.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted
