"""Kaldi text files: reading them, comparing their utterances, splitting them into tokens."""

import os
from collections.abc import Iterable
from pathlib import Path

from espnet_smop.fileio.table import read_lines

SPACE = "<space>"


class ScoringError(RuntimeError):
    """References and hypotheses cannot be compared; the message says which file and what to do."""


def read_text(path: str | os.PathLike) -> dict[str, str]:
    """Read a Kaldi ``text``-like file: an id, white space and the rest of the line.

    Returns:
        The rest of the line (possibly empty) by id, in the file's order.

    Raises:
        ScoringError: the file is absent, empty or not UTF-8, or an id occurs twice.
    """
    path = Path(path)
    if not path.is_file():
        raise ScoringError(f"{path} does not exist. Run the stage that writes it first")
    texts: dict[str, str] = {}
    for number, utt, rest in read_lines(path, ScoringError):
        if utt in texts:
            raise ScoringError(f"{path}:{number}: utterance '{utt}' occurs twice")
        texts[utt] = rest
    if not texts:
        raise ScoringError(f"{path} is empty. Run the stage that writes it again")
    return texts


def check_same_ids(
    reference: Iterable[str], other: Iterable[str], *, reference_name: str, other_name: str
) -> None:
    """Raise ScoringError unless both hold the same utterances, naming up to five that differ."""
    reference, other = set(reference), set(other)
    problems = []
    for ids, verb in ((reference - other, "lacks"), (other - reference, "has in excess")):
        if ids:
            names = ", ".join(sorted(ids)[:5]) + (", …" if len(ids) > 5 else "")
            problems.append(f"{other_name} {verb} {len(ids)} of {len(reference)} ids: {names}")
    if problems:
        raise ScoringError("; ".join(problems) + f" (compared with {reference_name})")


def words(text: str) -> list[str]:
    """Split at white space."""
    return text.split()


def characters(text: str) -> list[str]:
    """Split into characters, with ESPnet's ``<space>`` between words."""
    return [SPACE if c == " " else c for c in " ".join(text.split())]
