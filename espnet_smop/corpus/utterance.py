"""Utterances of a corpus on disk, before anything is written."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath


class CorpusError(RuntimeError):
    """A corpus cannot be prepared; the message is one line with file, cause and remedy."""


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One utterance of a set to be written.

    ``audio`` and ``video`` are files, which may be the same; one may be None. ``start`` and
    ``end`` are frames within the recording; ``end`` None is its end. ``kind`` is ``face``, or
    ``mouth`` where the video is the mouth crop already.
    """

    id: str
    speaker: str
    recording: str
    audio: str | None
    video: str | None
    text: str
    name: str
    """What lists of ids call it, such as ``trainval/<speaker>/<clip>``."""
    start: int = 0
    end: int | None = None
    landmarks: str | None = None
    kind: str = "face"

    @property
    def is_pretrain(self) -> bool:
        """Whether it is of LRS3's part pretrain."""
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
    """What a corpus directory holds.

    Attributes:
        form: its layout, in words.
        train: training utterances.
        valid: validation utterances, if the corpus defines them; otherwise None.
        test: test utterances.
        train_problems: clips of training and validation that cannot be used, with the reason.
        test_problems: the same of the test set.
    """

    form: str
    train: Sequence[Utterance] = ()
    valid: Sequence[Utterance] | None = None
    test: Sequence[Utterance] = ()
    train_problems: Mapping[str, str] = dataclasses.field(default_factory=dict)
    test_problems: Mapping[str, str] = dataclasses.field(default_factory=dict)
