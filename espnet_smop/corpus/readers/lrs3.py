"""LRS3 as distributed: clips with a text file each; long clips are cut.

    pretrain|trainval|test/<speaker>/<clip>.{mp4,txt}

A text file begins with ``Text:  …`` and ``Conf:  n``. In the pretrain part, a table ``WORD START
END ASDSCORE`` follows, with times in seconds, at which long clips are cut.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.corpus.landmarks import find_beside
from espnet_smop.corpus.readers.abs_reader import CorpusReader
from espnet_smop.corpus.text import normalise
from espnet_smop.corpus.utterance import (
    Corpus,
    CorpusError,
    Problem,
    UnusableClipError,
    Utterance,
    clip_ids,
    is_one_line,
)
from espnet_smop.modality import FRAME_RATE

PARTS = ("pretrain", "trainval", "test")
_HEADER = ["WORD", "START", "END"]
_MARGIN_FRAMES = 12
"""At most this much silence (0.48 s) stays before and after a cut."""
_CUT_RANGE = (1 / 2, 1)
"""Shortest and longest piece where there is a choice, as fractions of the limit."""
_LAST_CUT_BELOW = 1.5
"""A rest of at most this many limits is cut once more."""
_LAST_CUT_RANGE = (1 / 4, 3 / 4)
"""Where to make the last cut, as fractions of the rest."""


class TextFileError(UnusableClipError):
    """A clip's text file is missing or not in LRS3's format."""


@dataclasses.dataclass(frozen=True)
class Word:
    """A word as spoken, with its times in seconds."""

    text: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Transcript:
    """A text file's content; ``words`` is empty if it has no table."""

    text: str
    words: tuple[Word, ...] = ()


def read_text_file(path: str | Path) -> Transcript:
    """Read one of LRS3's text files.

    Raises:
        TextFileError: it is missing, or not in LRS3's format.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise TextFileError(path, "is not UTF-8; convert it or leave the clip out") from None
    except OSError as e:
        raise TextFileError(
            path, f"{e.strerror}; each clip needs its text file beside it"
        ) from None
    if not lines[0].startswith("Text:"):
        raise TextFileError(
            path, "does not begin with 'Text:'; copy it again from the corpus or leave it out"
        )
    words = []
    table = next((i for i, line in enumerate(lines) if line.split()[:3] == _HEADER), len(lines))
    for number, line in enumerate(lines[table + 1 :], table + 2):
        fields = line.split()
        if not fields:
            continue
        try:
            word = Word(fields[0], float(fields[1]), float(fields[2]))
        except (IndexError, ValueError):
            raise TextFileError(
                f"{path}:{number}",
                f"expected 'WORD START END ASDSCORE', found '{line.strip()}'; copy it again from "
                "the corpus or leave it out",
            ) from None
        if not 0 <= word.start <= word.end < float("inf"):
            raise TextFileError(
                f"{path}:{number}",
                f"'{word.text}' is spoken from {fields[1]} to {fields[2]} s; copy it again from "
                "the corpus or leave it out",
            )
        words.append(word)
    return Transcript(lines[0].removeprefix("Text:").strip(), tuple(words))


@dataclasses.dataclass(frozen=True)
class Segment:
    """A piece of a clip with its words as written.

    ``start`` and ``end`` are frames of 1/25 s; ``end`` is exclusive, and None is the clip's end.
    """

    start: int
    end: int | None
    text: str


def cut(words: Sequence[Word], max_seconds: float) -> list[Segment]:
    """Cut a clip between words into pieces of at most ``max_seconds``.

    A piece ends at the longest pause between half and the whole of the limit (at the last cut:
    between a quarter and three quarters of the rest, so that the last piece is not too short).
    Pieces meet in the middle of the pause; of pauses longer than 0.96 s each keeps 0.48 s. Times
    are rounded to frames.

    Raises:
        CorpusError: a single word is longer than ``max_seconds``.
    """
    limit = int(max_seconds * FRAME_RATE)
    begins, ends = _bounds(words)
    pieces = []
    first = 0
    while first < len(words):
        rest = ends[-1] - begins[first]
        if rest <= limit:
            last = len(words) - 1
        else:
            if rest > _LAST_CUT_BELOW * limit:
                low, high = (limit * fraction for fraction in _CUT_RANGE)
            else:
                low, high = (rest * fraction for fraction in _LAST_CUT_RANGE)
            fitting = [i for i in range(first, len(words) - 1) if ends[i] - begins[first] <= limit]
            if not fitting:
                raise CorpusError(
                    f"the word '{words[first].text}' at {words[first].start:.2f} s is longer than "
                    f"{max_seconds:g} s; raise --max_seconds or leave the clip out"
                )
            wanted = [i for i in fitting if low <= ends[i] - begins[first] <= high]
            last = max(wanted or fitting[-1:], key=lambda i: (words[i + 1].start - words[i].end, i))
        text = " ".join(word.text for word in words[first : last + 1])
        pieces.append(Segment(begins[first], ends[last], text))
        first = last + 1
    return pieces


def _bounds(words: Sequence[Word]) -> tuple[list[int], list[int]]:
    """Return, for each word, the frames where a piece starting or ending with it would be cut."""
    margin = _MARGIN_FRAMES / FRAME_RATE
    begins, ends = [max(0.0, words[0].start - margin)], []
    for before, after in itertools.pairwise(words):
        middle = (before.end + after.start) / 2
        ends.append(min(middle, before.end + margin))
        begins.append(max(middle, after.start - margin))
    ends.append(words[-1].end + margin)
    return [round(t * FRAME_RATE) for t in begins], [round(t * FRAME_RATE) for t in ends]


class LRS3Reader(CorpusReader):
    """LRS3 as distributed: ``pretrain|trainval|test/<speaker>/<clip>.{mp4,txt}``.

    Example::

        python -m espnet_smop.bin.prepare_corpus lrs3 --root DIR --out_dir data
    """

    def __init__(
        self,
        *,
        train_parts: Sequence[str] | None = None,
        max_seconds: float = 16.0,
        landmarks_dir: Path | None = None,
    ):
        """Configure the reader.

        Args:
            train_parts: the parts for training; None takes all that exist, and accepts a corpus
                without a test part.
            max_seconds: longer training clips with a word table are cut at word times; the ids
                of the pieces end in ``_<start>_<end>``, in hundredths of seconds.
            landmarks_dir: directory of landmark files in the corpus's layout; None looks beside
                the clips.
        """
        self.train_parts = train_parts
        self.max_seconds = max_seconds
        self.landmarks_dir = landmarks_dir

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add ``--train_parts``, ``--max_seconds`` and ``--landmarks_dir``."""
        add_train_parts(parser)
        add_max_seconds(parser)
        add_landmarks_dir(parser)

    @staticmethod
    def is_here(root: Path) -> bool:
        """Whether a directory has this layout."""
        return any((root / part).is_dir() for part in PARTS)

    def read(self, root: Path) -> Corpus:
        """Read the corpus; see `CorpusReader`."""
        wanted = (*(self.train_parts or ()), "test")
        missing = [part for part in wanted if not (root / part).is_dir()]
        if missing and self.train_parts is not None:
            raise CorpusError(
                f"{root}: has no {'/, '.join(missing)}/; give the directory that holds "
                f"{'/, '.join(PARTS)}/"
            )
        corpus = Corpus("LRS3 as distributed (pretrain/, trainval/, test/)")
        for part in PARTS[:2] if self.train_parts is None else self.train_parts:
            utterances, problems = _read_part(root, part, self.max_seconds, self.landmarks_dir)
            corpus.train = [*corpus.train, *utterances]
            corpus.train_problems = [*corpus.train_problems, *problems]
        # Test clips are never cut: their results are compared with the literature's.
        corpus.test, corpus.test_problems = _read_part(root, "test", None, self.landmarks_dir)
        return corpus


def add_train_parts(parser: argparse.ArgumentParser) -> None:
    """Add ``--train_parts``."""
    parser.add_argument(
        "--train_parts",
        nargs="+",
        choices=PARTS[:2],
        default=list(PARTS[:2]),
        help="parts of LRS3 for training: both have 433 h, trainval alone 30 h",
    )


def add_max_seconds(parser: argparse.ArgumentParser) -> None:
    """Add ``--max_seconds``."""
    parser.add_argument(
        "--max_seconds",
        type=float,
        default=16.0,
        help="longest piece of a pretrain clip; longer clips are cut at word times (24 is also "
        "common). For auto_avsr's trees: the segment length to read",
    )


def add_landmarks_dir(parser: argparse.ArgumentParser) -> None:
    """Add ``--landmarks_dir``."""
    parser.add_argument(
        "--landmarks_dir",
        type=Path,
        help="landmark files (.npy, .npz, .pkl) in the corpus's layout; default: beside the clips",
    )


def _read_part(
    root: Path, part: str, max_seconds: float | None, landmarks_dir: Path | None
) -> tuple[list[Utterance], list[Problem]]:
    described = [path.with_suffix(".mp4") for path in sorted((root / part).glob("*/*.txt"))]
    missing = {clip: None for clip in described if not clip.is_file()}
    problems = [Problem(str(clip), "no such clip, but its text file exists") for clip in missing]
    utterances: list[Utterance] = []
    for clip in sorted((root / part).glob("*/*.mp4")):
        if clip in missing:
            continue  # a broken symlink, or a directory
        found, wrong = read_clip(root, clip, max_seconds, landmarks_dir)
        utterances += found
        problems += wrong
    return utterances, problems


def read_clip(
    root: Path, clip: Path, max_seconds: float | None, landmarks_dir: Path | None
) -> tuple[list[Utterance], list[Problem]]:
    """Return the utterances of a clip with its text file beside it, and why some are left out.

    Args:
        root: directory of the parts.
        clip: ``<root>/<part>/<speaker>/<clip>.mp4``.
        max_seconds: a longer clip with a word table is cut; None cuts none.
        landmarks_dir: directory of landmark files in the layout of ``root``; None looks beside
            the clip.
    """
    if not is_one_line(str(clip)):
        name = str(clip).encode("unicode_escape", "surrogateescape").decode()
        return [], [Problem(name, "its name is not one line of UTF-8; rename it")]
    try:
        pieces = _pieces(read_text_file(clip.with_suffix(".txt")), max_seconds)
    except TextFileError as e:
        return [], [e.problem]
    except CorpusError as e:
        return [], [Problem(str(clip), str(e))]
    path = clip.relative_to(root).with_suffix("")
    recording, speaker = clip_ids(path)
    landmarks = find_beside(clip if landmarks_dir is None else landmarks_dir / path)
    texts = [normalise(piece.text) for piece in pieces]
    problems = [] if all(texts) else [Problem(str(clip), "empty transcript")]
    utterances = []
    for piece, text in zip(pieces, texts, strict=True):
        if not text:
            continue
        span = "" if piece.end is None else f"_{piece.start * 4:06d}_{piece.end * 4:06d}"
        utterances.append(
            Utterance(
                id=recording + span,
                speaker=speaker,
                recording=recording,
                audio=str(clip),
                video=str(clip),
                text=text,
                name=path.as_posix(),
                start=piece.start,
                end=piece.end,
                landmarks=str(landmarks) if landmarks else None,
            )
        )
    return utterances, problems


def _pieces(transcript: Transcript, max_seconds: float | None) -> list[Segment]:
    """Return a clip's segments; a segment whose end is None is the whole clip."""
    words = transcript.words
    margin = _MARGIN_FRAMES / FRAME_RATE
    if max_seconds is None or not words or words[-1].end + margin <= max_seconds:
        return [Segment(0, None, transcript.text)]
    return cut(words, max_seconds)
