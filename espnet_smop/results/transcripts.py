"""Transcripts of utterances: reading, comparing their ids, splitting into tokens."""

import os
from collections.abc import Iterable

from espnet_smop.fileio.table import read_table

SPACE = "<space>"


class ScoringError(RuntimeError):
    """References and hypotheses cannot be compared; the message says which file and what to do."""


def read_text(path: str | os.PathLike) -> dict[str, str]:
    """Read a Kaldi ``text``-like file.

    Returns:
        id → rest of the line (possibly empty), in the file's order.

    Raises:
        ScoringError: the file is missing, empty or not UTF-8, or has duplicate ids.
    """
    texts = read_table(path, ScoringError)
    if not texts:
        raise ScoringError(f"{path} is empty; run the stage that makes it")
    return texts


def check_same_ids(
    reference: Iterable[str], other: Iterable[str], *, reference_name: str, other_name: str
) -> None:
    """Raise ScoringError unless both hold the same utterances, naming up to five that differ."""
    reference, other = set(reference), set(other)
    problems = []
    for ids, text in (
        (reference - other, f"lacks {{}} of {len(reference)} ids"),
        (other - reference, "has {} extra ids"),
    ):
        if ids:
            names = ", ".join(sorted(ids)[:5]) + (", …" if len(ids) > 5 else "")
            problems.append(f"{other_name} {text.format(len(ids))}: {names}")
    if problems:
        raise ScoringError("; ".join(problems) + f" (compared with {reference_name})")


def words(text: str) -> list[str]:
    """Split at white space."""
    return text.split()


def characters(text: str) -> list[str]:
    """Split into characters, with ESPnet's ``<space>`` between words."""
    return [SPACE if c == " " else c for c in " ".join(text.split())]
