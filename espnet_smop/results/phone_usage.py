"""Which expert takes which phone class, and the mutual information of both."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from espnet_smop.results.phones import CLASSES

SHIFTS = 1000
_SEED = 0


@dataclass
class PhoneUsage:
    """A router's choices for tokens of known phone classes.

    Attributes:
        router: its name: ``joint``, or the modality it is for.
        modality: modality of the tokens.
        classes: ``(M,)``, index of each token's class in `CLASSES`, utterance after utterance.
        weights: ``(M, N)``, each expert's share in a token: 0 if not sent to it.
    """

    router: str
    modality: str
    classes: np.ndarray
    weights: np.ndarray

    def __add__(self, other: "PhoneUsage") -> "PhoneUsage":
        """Append the tokens of the same router and modality."""
        if (self.router, self.modality) != (other.router, other.modality):
            raise ValueError("usages of different routers or modalities cannot be added")
        return PhoneUsage(
            self.router,
            self.modality,
            np.concatenate([self.classes, other.classes]),
            np.concatenate([self.weights, other.weights]),
        )

    @property
    def first_choices(self) -> np.ndarray:
        """The weights ``(M, N)`` if each token were sent to its first choice alone."""
        return np.eye(self.weights.shape[1])[self.weights.argmax(1)]

    @cached_property
    def first(self) -> "Dependence":
        """How first choices depend on the class."""
        return Dependence.of(self.classes, self.first_choices)

    @cached_property
    def weighted(self) -> "Dependence":
        """How all choices, by their weights, depend on the class."""
        return Dependence.of(self.classes, self.weights)


@dataclass
class Dependence:
    """How experts depend on the phone class of tokens.

    Attributes:
        table: ``(C, N)``, tokens of a class that an expert takes.
        information: mutual information of expert and class, in bits.
        chance: mean of the mutual information in bits after the classes are shifted against the
            tokens by random numbers of tokens. A shift removes their dependence, but keeps the
            similarity of neighbours.
        chance_high: its 95th percentile.
    """

    table: np.ndarray
    information: float
    chance: float
    chance_high: float

    @classmethod
    def of(cls, classes: np.ndarray, weights: np.ndarray) -> "Dependence":
        """Measure the dependence of ``weights`` ``(M, N)`` on ``classes`` ``(M,)``."""
        shifts = np.random.default_rng(_SEED).integers(1, max(2, len(classes)), SHIFTS)
        by_chance = [mutual_information(_table(np.roll(classes, s), weights)) for s in shifts]
        table = _table(classes, weights)
        return cls(
            table,
            mutual_information(table),
            float(np.mean(by_chance)),
            float(np.percentile(by_chance, 95)),
        )

    @property
    def tokens(self) -> np.ndarray:
        """Number of tokens of each class, ``(C,)``."""
        return self.table.sum(1)

    @property
    def entropy(self) -> float:
        """Entropy of the class in bits: the upper bound of the information."""
        return entropy(self.tokens)


def entropy(counts: np.ndarray) -> float:
    """Return the entropy in bits of the distribution that ``counts`` are proportional to."""
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def mutual_information(table: np.ndarray) -> float:
    """Return the mutual information in bits of the rows and columns of a table of counts."""
    return entropy(table.sum(1)) + entropy(table.sum(0)) - entropy(table.ravel())


def _table(classes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the sums ``(C, N)`` of ``weights`` ``(M, N)`` by class."""
    columns = [np.bincount(classes, column, minlength=len(CLASSES)) for column in weights.T]
    return np.stack(columns, axis=1)
