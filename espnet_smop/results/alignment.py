"""Alignment of a hypothesis with its reference, as sclite does it.

sclite minimises 4 per substitution and 3 per insertion or deletion, not the number of errors, and
ignores the case of ASCII letters. Among alignments of the same cost it prefers, from the end, a
match or substitution to an insertion, and an insertion to a deletion. This was found by comparison
with sclite on random strings, which a test repeats.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_SUBSTITUTION, _GAP = 4, 3
_TO_LOWER = {c: c + 32 for c in range(ord("A"), ord("Z") + 1)}


class Counts(NamedTuple):
    """Token counts of a hypothesis against its reference."""

    correct: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def reference(self) -> int:
        """Number of reference tokens."""
        return self.correct + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        """Number of substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions


def fold_case(token: str) -> str:
    """Convert only ASCII letters to lower case, as sclite does."""
    return token.translate(_TO_LOWER)


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[str, str]]:
    """Return aligned pairs (reference token, hypothesis token); a gap is the empty string."""
    n, m = len(reference), len(hypothesis)
    ids: dict[str, int] = {}
    ref = [ids.setdefault(fold_case(t), len(ids)) for t in reference]
    hyp = np.array([ids.setdefault(fold_case(t), len(ids)) for t in hypothesis], dtype=np.int64)
    gaps = _GAP * np.arange(m + 1)
    cost = np.empty((n + 1, m + 1), dtype=np.int64)
    cost[0] = gaps
    for i in range(n):
        row = cost[i] + _GAP
        np.minimum(row[1:], cost[i, :-1] + np.where(hyp == ref[i], 0, _SUBSTITUTION), out=row[1:])
        # Insertions run along the row: min over k <= j of row[k] + 3 (j - k).
        cost[i + 1] = np.minimum.accumulate(row - gaps) + gaps

    pairs = []
    i, j = n, m
    steps = cost.tolist()
    while i or j:
        here = steps[i][j]
        if i and j:
            diagonal = 0 if ref[i - 1] == hyp[j - 1] else _SUBSTITUTION
            if here == steps[i - 1][j - 1] + diagonal:
                i, j = i - 1, j - 1
                pairs.append((reference[i], hypothesis[j]))
                continue
        if j and here == steps[i][j - 1] + _GAP:
            j -= 1
            pairs.append(("", hypothesis[j]))
        else:
            i -= 1
            pairs.append((reference[i], ""))
    return pairs[::-1]


def operation(pair: tuple[str, str]) -> str:
    """Return ``C``, ``S``, ``D`` or ``I``: correct, substitution, deletion or insertion."""
    reference, hypothesis = pair
    if not reference:
        return "I"
    if not hypothesis:
        return "D"
    return "C" if fold_case(reference) == fold_case(hypothesis) else "S"


def count(pairs: Sequence[tuple[str, str]]) -> Counts:
    """Count the operations of an alignment."""
    operations = [operation(pair) for pair in pairs]
    return Counts(*(operations.count(o) for o in "CSDI"))
