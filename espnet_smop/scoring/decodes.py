"""Scored decode directories of experiments: what was decoded, at which noise, with which errors."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from espnet_smop.scoring.alignment import align, count
from espnet_smop.scoring.transcripts import ScoringError
from espnet_smop.scoring.trn import Utterance, read_trn

CLEAN = "clean"
_NOISY = re.compile(r"(?P<set>.+)_(?P<noise>[^_]+)_snr(?P<snr>-?\d+(?:\.\d+)?)")


class Decode(NamedTuple):
    """One decode directory, ``EXP/TAG/SET`` or ``EXP/TAG/SET_NOISE_snrX``."""

    path: Path
    test_set: str
    noise: str
    """Name of the noise; empty for clean speech."""
    snr: str
    """Ratio in dB, or ``clean``."""


class UtteranceErrors(NamedTuple):
    """Errors of all utterances of a decode directory, by utterance."""

    speakers: list[str]
    names: list[str]
    errors: list[int]
    words: list[int]

    @property
    def rate(self) -> float:
        """Errors per reference word."""
        return sum(self.errors) / sum(self.words)


def find_decodes(experiment: Path, metric: str = "wer") -> Iterator[Decode]:
    """Yield the decode directories of an experiment that are scored, in the order of names."""
    for result in sorted(experiment.glob(f"*/*/score_{metric}/result.txt")):
        yield parse(result.parent.parent)


def parse(path: Path) -> Decode:
    """Tell test set, noise and ratio from a decode directory's name."""
    noisy = _NOISY.fullmatch(path.name)
    if noisy:
        return Decode(path, noisy["set"], noisy["noise"], noisy["snr"])
    return Decode(path, path.name, "", CLEAN)


def read_alignments(
    decode: Path, metric: str = "wer"
) -> tuple[list[Utterance], list[list[tuple[str, str]]]]:
    """Return a scored decode directory's references and the hypotheses' alignments with them.

    Raises:
        ScoringError: a file is missing, or the files do not belong together.
    """
    directory = decode / f"score_{metric}"
    references = read_trn(directory / "ref.trn")
    hypotheses = read_trn(directory / "hyp.trn")
    if [r.name for r in references] != [h.name for h in hypotheses]:
        raise ScoringError(f"{directory}: ref.trn and hyp.trn differ in ids. Score again")
    pairs = zip(references, hypotheses, strict=True)
    return references, [align(r.tokens, h.tokens) for r, h in pairs]


def read_errors(decode: Path, metric: str = "wer") -> UtteranceErrors:
    """Count the errors of a scored decode directory; raises as :func:`read_alignments`."""
    return errors_of(*read_alignments(decode, metric))


def errors_of(
    references: Sequence[Utterance], alignments: Sequence[Sequence[tuple[str, str]]]
) -> UtteranceErrors:
    """Count the errors of what :func:`read_alignments` returned."""
    counts = [count(alignment) for alignment in alignments]
    return UtteranceErrors(
        speakers=[r.speaker for r in references],
        names=[r.name for r in references],
        errors=[c.errors for c in counts],
        words=[c.reference for c in counts],
    )
