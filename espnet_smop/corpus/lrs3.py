"""LRS3 as it was distributed: clips with a text file each, and how long ones are cut.

    pretrain|trainval|test/<speaker>/<clip>.{mp4,txt}

A text file begins with ``Text:  …`` and ``Conf:  n``; those of pretrain go on with a table
``WORD START END ASDSCORE`` in seconds, by which long clips are cut.
"""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from espnet_smop.corpus.landmarks import find_beside
from espnet_smop.corpus.media import FRAME_RATE
from espnet_smop.corpus.text import normalise

PARTS = ("pretrain", "trainval", "test")
_MARGIN_FRAMES = 12
"""At most this much silence (0.48 s) stays before and after a cut."""


class CorpusError(RuntimeError):
    """A corpus cannot be prepared; the message is one line with file, cause and remedy."""


class TextFileError(CorpusError):
    """A clip's text file is missing or not of LRS3's form."""


@dataclasses.dataclass(frozen=True)
class Word:
    """A word as spoken, with its times in seconds."""

    text: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Transcript:
    """A text file's content; ``words`` is empty where it has no table."""

    text: str
    words: tuple[Word, ...] = ()


def read_text_file(path: str | Path) -> Transcript:
    """Read one of LRS3's text files.

    Raises:
        TextFileError: missing, or not of the form.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as e:
        raise TextFileError(
            f"{path}: {e.strerror}; each clip needs its text file beside it"
        ) from None
    if not lines or not lines[0].startswith("Text:"):
        raise TextFileError(
            f"{path}: does not begin with 'Text:'; copy it again from the corpus or leave it out"
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
                f"{path}:{number}: expected 'WORD START END ASDSCORE', found '{line.strip()}'; "
                "copy it again from the corpus or leave it out"
            ) from None
        words.append(word)
    return Transcript(lines[0].removeprefix("Text:").strip(), tuple(words))


_HEADER = ["WORD", "START", "END"]


@dataclasses.dataclass(frozen=True)
class Segment:
    """A piece of a clip, in frames of 1/25 s (``end`` excluded), with its words as written."""

    start: int
    end: int
    text: str


def cut(words: Sequence[Word], max_seconds: float) -> list[Segment]:
    """Cut a clip between words into pieces of at most ``max_seconds``.

    A piece ends at the longest pause between half and the whole of what is allowed (where a last
    cut is left: between a quarter and three quarters of the rest, so that no crumb remains).
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
            low, high = (limit / 2, limit) if rest > 1.5 * limit else (rest / 4, rest * 3 / 4)
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
    """Return where a piece that begins, and one that ends, with each word would begin and end."""
    margin = _MARGIN_FRAMES / FRAME_RATE
    begins, ends = [max(0.0, words[0].start - margin)], []
    for before, after in itertools.pairwise(words):
        middle = (before.end + after.start) / 2
        ends.append(min(middle, before.end + margin))
        begins.append(max(middle, after.start - margin))
    ends.append(words[-1].end + margin)
    return [round(t * FRAME_RATE) for t in begins], [round(t * FRAME_RATE) for t in ends]


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One utterance of a set to be written.

    ``start`` and ``end`` are frames within the recording; ``end`` None is its end. ``kind`` is
    ``face``, or ``mouth`` where the video is the mouth crop already.
    """

    id: str
    speaker: str
    recording: str
    audio: str
    video: str
    text: str
    name: str
    """What lists of ids call it, such as ``trainval/<speaker>/<clip>``."""
    start: int = 0
    end: int | None = None
    landmarks: str | None = None
    kind: str = "face"


def find_root(directory: str) -> Path:
    """Return LRS3's directory.

    Raises:
        CorpusError: not set, missing, or without LRS3's parts.
    """
    if not directory:
        raise CorpusError("LRS3 is not set: write the corpus directory as LRS3= in db.sh")
    root = Path(directory)
    if not root.is_dir():
        raise CorpusError(f"{root}: no such directory; correct LRS3= in db.sh")
    missing = [part for part in PARTS if not (root / part).is_dir()]
    if missing:
        raise CorpusError(
            f"{root}: has no {'/, '.join(missing)}/; set LRS3= in db.sh to the directory that "
            f"holds {'/, '.join(PARTS)}/"
        )
    return root


def safe_id(name: str) -> str:
    """Return a name as an id: blanks and slashes would break Kaldi's tables and file names."""
    return re.sub(r"[\s/\\]+", "_", name.strip())


def read_part(
    root: Path, part: str, *, max_seconds: float, landmarks_dir: Path | None = None
) -> tuple[list[Utterance], dict[str, str]]:
    """Read one of LRS3's parts.

    Ids are ``<speaker>_<clip>``, with ``pretrain_`` before the clip in pretrain (where clip
    numbers may recur) and ``_<start>_<end>`` in hundredths of seconds after it where a clip is cut.

    Args:
        root: LRS3's directory.
        part: one of `PARTS`.
        max_seconds: clips with a word table that last longer are cut.
        landmarks_dir: landmark files in LRS3's layout; None looks beside the clips.

    Returns:
        The utterances, and the clips (file → reason) that cannot be used.
    """
    utterances: list[Utterance] = []
    problems: dict[str, str] = {}
    folder = root / part
    clips = sorted(folder.glob("*/*.mp4"))
    for text_file in sorted(folder.glob("*/*.txt")):
        if not text_file.with_suffix(".mp4").is_file():
            problems[str(text_file.with_suffix(".mp4"))] = "no such clip, its text file is there"
    for clip in clips:
        try:
            transcript = read_text_file(clip.with_suffix(".txt"))
            # Test clips stay as they are: their results are compared with the literature's.
            pieces = [None] if part == "test" else _pieces(transcript, max_seconds)
        except CorpusError as e:
            problems[str(clip)] = str(e)
            continue
        speaker = safe_id(clip.parent.name)
        prefix = "pretrain_" if part == "pretrain" else ""
        recording = f"{speaker}_{prefix}{safe_id(clip.stem)}"
        beside = clip if landmarks_dir is None else landmarks_dir / clip.relative_to(root)
        landmarks = find_beside(beside)
        for piece in pieces:
            text = normalise(piece.text if piece else transcript.text)
            if not text:
                problems[str(clip)] = "empty transcript"
                continue
            span = f"_{piece.start * 4:06d}_{piece.end * 4:06d}" if piece else ""
            utterances.append(
                Utterance(
                    id=recording + span,
                    speaker=speaker,
                    recording=recording,
                    audio=str(clip),
                    video=str(clip),
                    text=text,
                    name=f"{part}/{clip.parent.name}/{clip.stem}",
                    start=piece.start if piece else 0,
                    end=piece.end if piece else None,
                    landmarks=str(landmarks) if landmarks else None,
                )
            )
    return utterances, problems


def _pieces(transcript: Transcript, max_seconds: float) -> list[Segment] | list[None]:
    """Return a clip's segments; [None] stands for the whole clip."""
    margin = _MARGIN_FRAMES / FRAME_RATE
    if not transcript.words or transcript.words[-1].end + margin <= max_seconds:
        return [None]
    return cut(transcript.words, max_seconds)


def split_by_speaker(
    utterances: Iterable[Utterance], share: float
) -> tuple[list[Utterance], list[Utterance]]:
    """Split off a validation set of whole speakers, the same whatever the order or machine.

    Speakers are taken in the order of a hash of their name until they have ``share`` of the
    utterances. Pretrain's clips neither count nor validate unless there are no others (their
    transcripts are the less exact ones); those of validation speakers are left out altogether.

    Returns:
        Training and validation utterances.

    Raises:
        CorpusError: fewer than two speakers.
    """
    utterances = list(utterances)
    candidates = [u for u in utterances if not u.name.startswith("pretrain/")] or utterances
    count: dict[str, int] = {}
    for utterance in candidates:
        count[utterance.speaker] = count.get(utterance.speaker, 0) + 1
    num_speakers = len({u.speaker for u in utterances})
    if num_speakers < 2:
        raise CorpusError(
            "training clips of fewer than two speakers: no validation set can be cut; "
            "give one by --valid_list"
        )
    chosen: set[str] = set()
    wanted = share * len(candidates)
    held = 0
    for speaker in sorted(count, key=lambda s: hashlib.sha256(s.encode()).digest()):
        if held >= wanted or len(chosen) == num_speakers - 1:
            break
        chosen.add(speaker)
        held += count[speaker]
    valid = [u for u in candidates if u.speaker in chosen]
    return [u for u in utterances if u.speaker not in chosen], valid


def split_by_list(
    utterances: Iterable[Utterance], names: Iterable[str]
) -> tuple[list[Utterance], list[Utterance]]:
    """Split off the utterances that a list names, by id or as ``trainval/<speaker>/<clip>``.

    Raises:
        CorpusError: the list names none of them.
    """
    names = set(names)
    train, valid = [], []
    for utterance in utterances:
        listed = utterance.id in names or utterance.name in names
        (valid if listed else train).append(utterance)
    if not valid:
        raise CorpusError(
            "--valid_list names none of the training clips; expected lines like "
            "trainval/<speaker>/<clip>"
        )
    return train, valid
