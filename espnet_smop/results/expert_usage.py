"""How routers distribute tokens over experts: counts over utterances, and one utterance in time."""

from dataclasses import dataclass

import numpy as np

CHOICES = ("first", "second")


@dataclass
class Usage:
    """Counts of a router's choices for the tokens of one modality.

    Attributes:
        router: its name: ``joint``, the modality it is for, or the LLM's layer that it is in.
        modality: modality of the tokens; in the LLM, the view.
        counts: ``(K, N)``, how often each of N experts was the first, second, … choice.
    """

    router: str
    modality: str
    counts: np.ndarray

    @classmethod
    def of(cls, router: str, modality: str, indices: np.ndarray, num_experts: int) -> "Usage":
        """Count the choices ``(M, K)`` of M tokens; an index of N or more is padding."""
        counts = [np.bincount(column, minlength=num_experts)[:num_experts] for column in indices.T]
        return cls(router, modality, np.array(counts))

    def __add__(self, other: "Usage") -> "Usage":
        """Add the counts of the same router and modality."""
        if (self.router, self.modality) != (other.router, other.modality):
            raise ValueError("usages of different routers or modalities cannot be added")
        return Usage(self.router, self.modality, self.counts + other.counts)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return int(self.counts[0].sum())

    @property
    def shares(self) -> np.ndarray:
        """Share of tokens ``(K, N)`` for which an expert is the first, second, … choice."""
        return self.counts / max(self.tokens, 1)

    @property
    def load(self) -> np.ndarray:
        """Share ``(N,)`` of each expert in all assignments of tokens to experts; sums to 1."""
        return self.counts.sum(0) / max(self.counts.sum(), 1)

    @property
    def evenness(self) -> float:
        """Entropy of the load over its maximum, log N: 1 if all experts have the same load."""
        return _evenness(self.load)

    @property
    def first_evenness(self) -> float:
        """Evenness of first choices alone."""
        return _evenness(self.shares[0])

    @property
    def imbalance(self) -> float:
        """Load of the busiest expert over the mean load: 1 if all are equal, at most N/K."""
        return float(self.load.max() * self.counts.shape[1])


@dataclass
class Route:
    """A router's choices for the tokens of one utterance and modality.

    Attributes:
        router: its name.
        modality: modality of the tokens.
        probs: ``(T, N)``, the router's softmax.
        choices: ``(T, K)``, experts by descending probability.
        token_seconds: duration that a token covers.
    """

    router: str
    modality: str
    probs: np.ndarray
    choices: np.ndarray
    token_seconds: float


@dataclass
class Strip:
    """One utterance, from its signals to its routes.

    Attributes:
        uid: its id.
        text: reference transcript; None if there is none.
        speech: waveform ``(samples,)`` at 16 kHz; None for a model without audio.
        video: grey mouth crops, uint8 ``(T, H, W)`` at 25 fps; None for a model without video.
        routes: one for each router and modality.
    """

    uid: str
    text: str | None
    speech: np.ndarray | None
    video: np.ndarray | None
    routes: list[Route]


def _evenness(shares: np.ndarray) -> float:
    used = shares[shares > 0]
    return float((used * np.log(1 / used)).sum() / np.log(len(shares)))
