"""NIST ``trn`` files: a line of tokens, then ``(speaker-utterance)``."""

import os
from pathlib import Path
from typing import NamedTuple

from espnet_smop.results.transcripts import ScoringError

# sclite's markup (alternatives, optional words, comments, escapes) becomes full-width characters,
# one for one, so that equal tokens stay equal and different ones different.
_MARKUP = str.maketrans("(){}@;*\\/", "（）｛｝＠；＊＼／")


class Utterance(NamedTuple):
    """One line of a trn file."""

    speaker: str
    name: str
    tokens: list[str]


def format_line(utterance: Utterance) -> str:
    """Return the line of an utterance; its speaker ends at the first ``-``."""
    speaker = utterance.speaker.replace("-", "_").translate(_MARKUP)
    tokens = " ".join(utterance.tokens).translate(_MARKUP)
    return f"{tokens} ({speaker}-{utterance.name.translate(_MARKUP)})"


def read_trn(path: str | os.PathLike) -> list[Utterance]:
    """Read a trn file as this module writes it.

    Raises:
        ScoringError: the file is missing or not UTF-8, or a line has no id.
    """
    path = Path(path)
    if not path.is_file():
        raise ScoringError(f"{path} does not exist. Run the scoring stage first")
    utterances = []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ScoringError(f"{path} is not UTF-8. Run the scoring stage again") from None
    for number, line in enumerate(text.rstrip("\n").split("\n"), 1):
        tokens, _, name = line.rstrip().rpartition("(")
        if not name.endswith(")"):
            raise ScoringError(f"{path}:{number}: no (speaker-utterance) at the end of the line")
        speaker, _, rest = name[:-1].partition("-")
        utterances.append(Utterance(speaker, rest, tokens.split()))
    return utterances
