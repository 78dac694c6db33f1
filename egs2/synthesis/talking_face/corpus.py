"""Writes the mini corpus in LRS3's directory and file format.

    OUT/{trainval,test,pretrain}/<speaker>/<clip>.{mp4,txt,npy}
    OUT/valid.id        clips of trainval that are kept for validation, such as trainval/s49/50001
    OUT/truth.jsonl     for each clip its text, and its words and phones with times
    OUT/settings.json   the settings; OUT/.done holds the same once complete

``.npy`` holds the landmarks, float32 ``(frames, 68, 2)``. `talking_face.prepared` describes the two
prepared forms of LRS3, with mouth crops already cut, and `talking_face.lrs2` that of LRS2.

A clip depends only on the settings and its name, so neither the number of processes nor an
interruption changes anything; complete clips are not made again.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from zlib import crc32

import cv2
import numpy as np

from talking_face import grammar, lips, lrs2, prepared
from talking_face.difficulty import Difficulty
from talking_face.face import FRAME_SIZE, Face
from talking_face.files import atomic, write_mp4, write_text
from talking_face.lips import FRAME_RATE
from talking_face.sound import record
from talking_face.speakers import FIRST_PRETRAINER, PRETRAINING_VOICES, Speaker, speaker
from talking_face.speech import SAMPLE_RATE, Segment, Utterance, synthesise

VERSION = 3  # of the output for the same settings
_SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of the parts.

    Attributes:
        train: training utterances.
        valid: validation utterances.
        test: test utterances.
        speakers: numbers of training, validation and test speakers, 32 together at most.
        pretrain: utterances for base models, those within long clips included.
        pretrainers: number of their speakers.
        long: long pretrain clips, of ``joined`` utterances.
        joined: utterances in a long clip.
    """

    train: int
    valid: int
    test: int
    speakers: tuple[int, int, int] = (20, 4, 8)
    pretrain: int = 0
    pretrainers: int = 1
    long: int = 0
    joined: int = 1


DEFAULT = Size(train=900, valid=60, test=600, speakers=(20, 4, 8))
SMOKE = Size(train=32, valid=8, test=12, speakers=(3, 2, 3))
PRETRAINING = Size(pretrain=10000, train=28, valid=200, test=28, long=40, joined=4, pretrainers=280)
PRETRAINING_SMOKE = Size(
    pretrain=40, train=32, valid=8, test=12, long=2, joined=3, pretrainers=3, speakers=(3, 2, 3)
)
SIZES = {
    "default": DEFAULT,
    "smoke": SMOKE,
    "pretraining": PRETRAINING,
    "pretraining_smoke": PRETRAINING_SMOKE,
}


def size_of(name: str) -> Size:
    """Return the size of a name, or one of N training and validation utterances.

    A size N keeps the proportions and speakers of the default one.
    """
    if name in SIZES:
        return SIZES[name]
    if not name.isdigit() or int(name) < 40:
        raise ValueError(f"size {name!r}: give {', '.join(SIZES)}, or a number of at least 40")
    count = int(name)
    share = count / (DEFAULT.train + DEFAULT.valid)
    valid = max(round(DEFAULT.valid * share), 4)
    return Size(
        train=count - valid,
        valid=valid,
        test=max(round(DEFAULT.test * share), 8),
        speakers=DEFAULT.speakers,
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a corpus."""

    size: Size
    seed: int
    difficulty: Difficulty
    form: str = "raw"

    def to_json(self) -> str:
        """Return the settings as text; equal settings give equal text."""
        return json.dumps({"version": VERSION, **asdict(self)}, indent=1) + "\n"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip to be made.

    Attributes:
        name: ``part/speaker/number``.
        split: ``train``, ``valid`` or ``test``.
        speaker: The speaker's index.
        texts: Its sentences.
    """

    name: str
    split: str
    speaker: int
    texts: tuple[str, ...]


def plan(settings: Settings) -> list[Clip]:
    """Return all clips; no sentence occurs twice, no speaker in two splits."""
    size = settings.size

    def draw(count: int, *, pretraining: bool) -> Iterator[str]:
        rng = np.random.default_rng([settings.seed, crc32(b"sentences")])
        return iter(grammar.sentences(rng, count, pretraining=pretraining))

    texts = draw(size.train + size.valid + size.test, pretraining=False)
    reserved = draw(size.pretrain, pretraining=True)
    trainers, validators, testers = size.speakers
    train_from = PRETRAINING_VOICES
    valid_from = train_from + trainers
    test_from = valid_from + validators

    def spread(part: str, split: str, first: int, people: int, count: int, start: int, joined: int):
        source = reserved if part == "pretrain" else texts
        for i in range(count):
            who = first + i % people
            number = start + i // people
            name = f"{part}/s{who + 1:02d}/{number:05d}"
            said = tuple(next(source) for _ in range(joined))
            yield Clip(name=name, split=split, speaker=who, texts=said)

    short = size.pretrain - size.long * size.joined
    return [
        *spread("pretrain", "train", FIRST_PRETRAINER, size.pretrainers, size.long, 1, size.joined),
        *spread("pretrain", "train", FIRST_PRETRAINER, size.pretrainers, short, 10001, 1),
        *spread("trainval", "train", train_from, trainers, size.train, 50001, 1),
        *spread("trainval", "valid", valid_from, validators, size.valid, 50001, 1),
        *spread("test", "test", test_from, testers, size.test, 1, 1),
    ]


def make(out: Path, settings: Settings, *, jobs: int) -> None:
    """Make the corpus in ``out`` with ``jobs`` processes, or complete it.

    Raises:
        FileExistsError: ``out`` holds a corpus made with other settings.
    """
    asked = settings.to_json()
    marker = out / "settings.json"
    if marker.exists() and marker.read_text() != asked:
        raise FileExistsError(
            f"{out} has a corpus with other settings ({marker}): remove it or choose another --out"
        )
    if (out / ".done").exists():
        print(f"make_corpus: {out} is complete")
        return
    out.mkdir(parents=True, exist_ok=True)
    write_text(marker, asked)

    clips = plan(settings)
    missing = [clip for clip in clips if not _truth_path(out, clip).exists()]
    if len(missing) < len(clips):
        print(f"make_corpus: {len(clips) - len(missing)} of {len(clips)} clips exist already")
    progress = _Progress(len(missing))
    for count in _run(out, settings, missing, jobs):
        progress.step(count)
    print(f"make_corpus: {len(missing)} clips made in {progress.seconds():.0f} s", flush=True)

    truth = [_truth_path(out, clip).read_text() for clip in clips]
    if settings.form == "lrs2":
        lrs2.write_lists(out, [json.loads(row) for row in truth])
    elif settings.form != "raw":
        prepared.write_lists(out, settings.form, [json.loads(row) for row in truth])
    valid = [clip.name for clip in clips if clip.split == "valid"]
    write_text(out / "valid.id", "".join(f"{name}\n" for name in valid))
    write_text(out / "truth.jsonl", "".join(truth))
    write_text(out / ".done", asked)
    shutil.rmtree(out / ".truth")


class _Progress:
    """Prints a line with the time left every ten seconds."""

    def __init__(self, total: int) -> None:
        self._total, self._count = total, 0
        self._start = self._printed = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._start

    def step(self, count: int) -> None:
        """Count ``count`` more clips."""
        self._count += count
        if time.monotonic() - self._printed >= 10:
            self._printed = time.monotonic()
            left = self.seconds() / self._count * (self._total - self._count)
            print(f"make_corpus: {self._count}/{self._total} clips, {left:.0f} s left", flush=True)


def _run(out: Path, settings: Settings, clips: list[Clip], jobs: int) -> Iterator[int]:
    """Make the clips; yield the number of newly finished ones, repeatedly."""
    groups = [clips[i : i + 16] for i in range(0, len(clips), 16)]
    if jobs <= 1:
        for group in groups:
            yield _make_clips(out, settings, group)
        return
    # Fresh processes: a fork would copy the threads' locks of the libraries used here.
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent) as pool:
        for done in as_completed([pool.submit(_make_clips, out, settings, g) for g in groups]):
            yield done.result()


def _end_with_parent() -> None:
    """End this process when its parent is killed: it would wait for ever."""

    def follow() -> None:
        parent_process().join()
        os._exit(1)

    Thread(target=follow, daemon=True).start()


def _make_clips(out: Path, settings: Settings, clips: list[Clip]) -> int:
    for clip in clips:
        make_clip(out, settings, clip)
    return len(clips)


@cache
def _person(index: int, seed: int, difficulty: Difficulty) -> tuple[Speaker, Face]:
    person = speaker(index, seed, difficulty)
    return person, Face(person.look)


def make_clip(out: Path, settings: Settings, clip: Clip) -> None:
    """Make one clip: video, text, landmarks, and last its truth, which marks it complete."""
    cv2.setNumThreads(1)
    difficulty = settings.difficulty
    person, face = _person(clip.speaker, settings.seed, difficulty)
    rng = np.random.default_rng([settings.seed, crc32(clip.name.encode())])
    utterance = _speak(clip.texts, person, rng)
    frames = len(utterance.samples) // _SAMPLES_PER_FRAME
    path = lips.movement(utterance.phones, frames, person.articulation, difficulty, rng)
    video, landmarks = face.film(path, difficulty, rng)
    samples = record(utterance.samples, person.room, difficulty, rng)

    if settings.form in ("raw", "lrs2"):
        stem = out / (lrs2.renamed(clip.name) if settings.form == "lrs2" else clip.name)
        write_mp4(stem.with_suffix(".mp4"), video, samples, difficulty.crf)
        text = _lrs3_text(utterance, rng, table=clip.name.startswith("pretrain/"))
        write_text(stem.with_suffix(".txt"), text)
        with atomic(stem.with_suffix(".npy")) as temporary, temporary.open("wb") as file:
            np.save(file, landmarks)
    else:
        crops = prepared.crop_mouths(video[:, :FRAME_SIZE], landmarks)
        prepared.write_clip(out, settings.form, clip.name, crops, samples, " ".join(clip.texts))
    truth = _truth_path(out, clip)
    write_text(truth, _truth(clip, person, utterance, frames))


def _speak(texts: tuple[str, ...], person: Speaker, rng: np.random.Generator) -> Utterance:
    """Return the sentences with silence around them, a whole number of frames long."""
    pieces: list[np.ndarray] = []
    words: list[Segment] = []
    phones: list[Segment] = []
    length = 0

    def add(samples: np.ndarray) -> None:
        nonlocal length
        pieces.append(samples)
        length += len(samples)

    def silence(low: float, high: float) -> np.ndarray:
        return np.zeros(int(rng.uniform(low, high) * SAMPLE_RATE), np.float32)

    add(silence(0.12, 0.28))
    for i, text in enumerate(texts):
        if i:
            add(silence(0.15, 0.5))
        said = synthesise(text, person.voice)
        start = length / SAMPLE_RATE
        words += [Segment(w.label, w.start + start, w.end + start) for w in said.words]
        phones += [Segment(p.label, p.start + start, p.end + start) for p in said.phones]
        # Without eSpeak's own pause at the end: pauses are drawn here.
        add(said.samples[: round(said.phones[-1].end * SAMPLE_RATE)])
    add(silence(0.12, 0.28))
    add(np.zeros(-length % _SAMPLES_PER_FRAME, np.float32))
    return Utterance(np.concatenate(pieces), words, phones)


def _lrs3_text(utterance: Utterance, rng: np.random.Generator, *, table: bool) -> str:
    """Return the text file of a clip, with the words' times if it is a pretrain clip's."""
    words = utterance.words
    lines = [
        "Text:  " + " ".join(word.label.upper() for word in words),
        f"Conf:  {rng.integers(3, 7)}",
    ]
    if table:
        lines += ["", "WORD START END ASDSCORE"]
        for word in words:
            score = rng.uniform(3, 9)
            lines.append(f"{word.label.upper()} {word.start:.2f} {word.end:.2f} {score:.1f}")
    return "\n".join(lines) + "\n"


def _truth(clip: Clip, person: Speaker, utterance: Utterance, frames: int) -> str:
    def rows(segments: list[Segment]) -> list[list[str | float]]:
        return [[s.label, round(s.start, 4), round(s.end, 4)] for s in segments]

    row = {
        "clip": clip.name,
        "split": clip.split,
        "speaker": person.name,
        "text": " ".join(clip.texts),
        "frames": frames,
        "words": rows(utterance.words),
        "phones": rows(utterance.phones),
    }
    return json.dumps(row) + "\n"


def _truth_path(out: Path, clip: Clip) -> Path:
    return out / ".truth" / f"{clip.name}.json"
