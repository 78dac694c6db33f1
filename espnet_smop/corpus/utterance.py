"""Utterances of a corpus on disk, before anything is written."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Literal

VideoKind = Literal["face", "mouth"]
"""Content of a video: a face, from which the mouth has to be cropped, or the crop itself."""


class CorpusError(RuntimeError):
    """A corpus cannot be prepared; the message is one line with file, cause and remedy."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why a clip cannot be used.

    Attributes:
        path: the clip, or its file that is at fault, possibly with a line number.
        reason: cause and remedy.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class UnusableClipError(CorpusError):
    """A clip cannot be used; ``problem`` says which file is at fault and why."""

    def __init__(self, path: str | PurePath, reason: str):
        self.problem = Problem(str(path), reason)
        super().__init__(str(self.problem))


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One utterance of a set to be written.

    ``audio`` and ``video`` are files, which may be the same; one may be None. ``start`` and
    ``end`` are frames within the recording; an ``end`` of None is the recording's end.
    """

    id: str
    speaker: str
    recording: str
    audio: str | None
    video: str | None
    text: str
    name: str
    """Its name in lists of ids, such as ``trainval/<speaker>/<clip>``."""
    start: int = 0
    end: int | None = None
    landmarks: str | None = None
    kind: VideoKind = "face"

    @property
    def is_pretrain(self) -> bool:
        """Whether it belongs to the pretrain part of LRS2 or LRS3."""
        return self.name.startswith("pretrain/")


def is_one_line(path: str) -> bool:
    """Whether a path can be a value of a Kaldi table: one line of UTF-8."""
    return not any(c in "\r\n" or "\udc80" <= c <= "\udcff" for c in path)


def safe_id(name: str) -> str:
    """Return a name as an id: blanks and slashes would break Kaldi's tables and file names."""
    return re.sub(r"[\s/\\]+", "_", name.strip())


def clip_ids(path: PurePath) -> tuple[str, str]:
    """Return recording id and speaker of a clip ``<part>/<speaker>/…/<clip>`` (without suffix).

    The id is ``<speaker>_…_<clip>``. Parts of pretraining clips get ``pretrain_`` after the
    speaker, because clip numbers may recur between parts.
    """
    part, speaker, *rest = path.parts
    prefix = ["pretrain"] if part.endswith("pretrain") else []
    return safe_id("_".join([speaker, *prefix, *rest])), safe_id(speaker)


@dataclasses.dataclass
class Corpus:
    """The content of a corpus directory.

    Attributes:
        form: description of its layout.
        train: training utterances.
        valid: validation utterances, if the corpus defines them; otherwise None.
        test: test utterances.
        train_problems: training and validation clips that cannot be used.
        test_problems: test clips that cannot be used.
    """

    form: str
    train: Sequence[Utterance] = ()
    valid: Sequence[Utterance] | None = None
    test: Sequence[Utterance] = ()
    train_problems: Sequence[Problem] = ()
    test_problems: Sequence[Problem] = ()
