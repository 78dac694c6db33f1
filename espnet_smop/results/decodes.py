"""Scored decode directories of experiments: test set, noise level and errors."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from espnet_smop.results.alignment import align, count
from espnet_smop.results.intervals import Comparison, interval, paired
from espnet_smop.results.transcripts import ScoringError
from espnet_smop.results.trn import read_trn

CLEAN = "clean"
_NOISY = re.compile(r"(?P<set>.+)_(?P<noise>[^_]+)_snr(?P<snr>-?\d+(?:\.\d+)?)")


class Condition(NamedTuple):
    """A test condition.

    Attributes:
        test_set: its name.
        noise: name of the noise; empty for clean speech.
        snr: signal-to-noise ratio in dB as the directory spells it, or ``clean``.
    """

    test_set: str
    noise: str
    snr: str

    @property
    def level(self) -> str:
        """Noise and ratio in readable form."""
        return CLEAN if self.snr == CLEAN else f"{self.noise} {self.snr} dB"

    @property
    def order(self) -> tuple:
        """Sort key: test set, clean first, then each noise from weak to strong."""
        decibel = 0.0 if self.snr == CLEAN else float(self.snr)
        return self.test_set, self.noise, -decibel

    def __str__(self) -> str:
        return f"{self.test_set}, {self.level}"


class Decode(NamedTuple):
    """One decode directory, ``EXP/TAG/SET`` or ``EXP/TAG/SET_NOISE_snrX``."""

    path: Path
    condition: Condition

    @property
    def tag(self) -> str:
        """Name of the decoding, the recipe's ``inference_tag``."""
        return self.path.parent.name


def find_decodes(experiment: Path, metric: str = "wer") -> Iterator[Decode]:
    """Yield the scored decode directories of an experiment in the order of their names."""
    for result in sorted(experiment.glob(f"*/*/score_{metric}/result.txt")):
        path = result.parent.parent
        yield Decode(path, parse_condition(path.name))


def parse_condition(name: str) -> Condition:
    """Return test set, noise and ratio from the name of a decode directory."""
    noisy = _NOISY.fullmatch(name)
    return Condition(*noisy.group("set", "noise", "snr")) if noisy else Condition(name, "", CLEAN)


@dataclass
class Score:
    """Errors of a scored decode directory; lists have one item per utterance.

    Attributes:
        path: the decode directory.
        speakers: speaker of each utterance.
        names: id of each utterance.
        errors: substitutions, deletions and insertions.
        words: reference tokens.
        alignments: aligned pairs of reference and hypothesis tokens.
        unit: what the bootstrap draws: ``speaker`` or ``utterance``.
    """

    path: Path
    speakers: list[str]
    names: list[str]
    errors: list[int]
    words: list[int]
    alignments: list[list[tuple[str, str]]]
    unit: str = "utterance"

    @classmethod
    def read(cls, decode: Path, *, metric: str = "wer", unit: str = "utterance") -> "Score":
        """Align the hypotheses of a scored decode directory with their references.

        Raises:
            ScoringError: a file is missing, or the files do not belong together.
        """
        directory = decode / f"score_{metric}"
        references = read_trn(directory / "ref.trn")
        hypotheses = read_trn(directory / "hyp.trn")
        if [r.name for r in references] != [h.name for h in hypotheses]:
            raise ScoringError(f"{directory}: ref.trn and hyp.trn differ in ids. Score again")
        pairs = zip(references, hypotheses, strict=True)
        alignments = [align(r.tokens, h.tokens) for r, h in pairs]
        counts = [count(alignment) for alignment in alignments]
        return cls(
            path=decode,
            speakers=[r.speaker for r in references],
            names=[r.name for r in references],
            errors=[c.errors for c in counts],
            words=[c.reference for c in counts],
            alignments=alignments,
            unit=unit,
        )

    @property
    def rate(self) -> float:
        """Errors per reference token."""
        return sum(self.errors) / sum(self.words)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Ends of the rate's 95 % bootstrap interval."""
        return interval(self.errors, self.words, groups=self.groups)

    @property
    def groups(self) -> list[str] | None:
        """The speaker of each utterance if the bootstrap draws speakers, else None."""
        return self.speakers if self.unit == "speaker" else None

    def same_test(self, other: "Score") -> bool:
        """Whether both have the same utterances, with references of the same lengths."""
        return (self.names, self.words) == (other.names, other.words)

    def check_same_test(self, other: "Score") -> None:
        """Raise ScoringError unless both have the same utterances and references."""
        if not self.same_test(other):
            raise ScoringError(f"{self.path} and {other.path} differ in utterances or references")

    def compare(self, other: "Score") -> Comparison:
        """Compare with another system's score on the same test.

        Raises:
            ScoringError: the scores are of different utterances.
        """
        self.check_same_test(other)
        return paired(self.errors, other.errors, self.words, groups=self.groups)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.rate:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
