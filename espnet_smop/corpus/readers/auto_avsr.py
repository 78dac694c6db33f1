"""The directory tree that auto_avsr's preparation makes from LRS3 or another corpus.

    labels/<dataset>_<subset>_transcript_lengths_seg<N>s.csv   dataset,path,frames,tokens
    <dataset>/<dataset>_video_seg<N>s/<part>/<speaker>/<clip>.{mp4,wav}    mouth crops, 96×96
    <dataset>/<dataset>_text_seg<N>s/<part>/<speaker>/<clip>.txt

The clips are already cut and cropped. The tokens are auto_avsr's own, so transcripts are read from
the text files. Clips directly below the root, without the dataset's directory, are found as well.

Published trees may have training labels of 16 s beside test labels of 24 s, a part of the training
set as a file of its own, and names with a suffix (``…_seg16s_LLM_lowercase_25.csv``, where long
clips were removed). For each dataset and subset the reader takes the wanted length, or the only one
there is; prefers the plain name to one with a suffix; and takes each clip once.
"""

import argparse
import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from espnet_smop.corpus.readers.abs_reader import CorpusReader
from espnet_smop.corpus.readers.lrs3 import add_max_seconds, add_train_parts
from espnet_smop.corpus.text import normalise
from espnet_smop.corpus.utterance import Corpus, CorpusError, Problem, Utterance, clip_ids

_LABELS = re.compile(r"(?P<name>.+)_seg(?P<seconds>\d+)s(?P<addition>.*)\.csv")


class AutoAVSRReader(CorpusReader):
    """A corpus prepared by auto_avsr: mouth crops, listed by ``labels/*.csv``.

    Example::

        python -m espnet_smop.bin.prepare_corpus auto_avsr --root DIR --out_dir data
    """

    def __init__(self, *, train_parts: Sequence[str] | None = None, max_seconds: float = 16.0):
        """Configure the reader.

        Args:
            train_parts: the parts for training; None takes all but ``test``.
            max_seconds: chooses between labels of several segment lengths.
        """
        self.train_parts = train_parts
        self.max_seconds = max_seconds

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add ``--train_parts`` and ``--max_seconds``."""
        add_train_parts(parser)
        add_max_seconds(parser)

    @staticmethod
    def is_here(root: Path) -> bool:
        """Whether a directory has this layout."""
        return any(root.glob("labels/*.csv"))

    def read(self, root: Path) -> Corpus:
        """Read the corpus; see `CorpusReader`."""
        train, test, train_problems, test_problems = [], [], [], []
        seen: set[Path] = set()
        for path in _label_files(root, self.max_seconds):
            with open(path, encoding="utf-8-sig", newline="") as lines:
                for number, row in enumerate(_rows(path, lines), 1):
                    if len(row) < 3 or len(Path(row[1]).parts) < 4 or not _is_inside(*row[:2]):
                        raise CorpusError(
                            f"{path}:{number}: expected dataset,path,frames,tokens; prepare the "
                            "corpus again"
                        )
                    clip = _find(root, row[0], row[1])
                    if clip in seen:
                        continue
                    seen.add(clip)
                    # <dataset>_video_seg16s/<part>/<speaker>/<clip>.mp4
                    name = Path(*Path(row[1]).with_suffix("").parts[1:])
                    is_test = name.parts[0] == "test"
                    if (
                        not is_test
                        and self.train_parts is not None
                        and name.parts[0] not in self.train_parts
                    ):
                        continue
                    problems = test_problems if is_test else train_problems
                    utterance = _utterance(clip, name, problems)
                    if utterance:
                        (test if is_test else train).append(utterance)
        return Corpus(
            "auto_avsr's prepared tree (labels/*.csv), mouth crops ready",
            train=train,
            test=test,
            train_problems=train_problems,
            test_problems=test_problems,
        )


def _label_files(root: Path, max_seconds: float) -> list[Path]:
    found: dict[str, dict[int, dict[str, Path]]] = {}
    for path in sorted(root.glob("labels/*.csv")):
        match = _LABELS.fullmatch(path.name)
        if match:
            lengths = found.setdefault(match["name"], {})
            lengths.setdefault(int(match["seconds"]), {})[match["addition"]] = path
    if not found:
        raise CorpusError(
            f"{root}/labels: no <dataset>_<subset>_transcript_lengths_seg<N>s.csv; prepare the "
            "corpus again"
        )
    chosen = []
    for name, lengths in found.items():
        seconds = next(iter(lengths)) if len(lengths) == 1 else int(max_seconds)
        if seconds not in lengths:
            raise CorpusError(
                f"{root}/labels: {name} has segments of {sorted(lengths)} s, none of "
                f"{max_seconds:g} s; choose one by --max_seconds"
            )
        additions = lengths[seconds]
        if "" not in additions and len(additions) > 1:
            listed = ", ".join(path.name for path in additions.values())
            raise CorpusError(f"{root}/labels: keep only one of {listed}")
        chosen.append(additions.get("", next(iter(additions.values()))))
    return chosen


def _rows(path: Path, lines: Iterable[str]) -> Iterator[list[str]]:
    try:
        yield from csv.reader(lines)
    except (csv.Error, UnicodeDecodeError) as e:
        raise CorpusError(f"{path}: not a CSV file ({e}); prepare the corpus again") from None


def _is_inside(dataset: str, relative: str) -> bool:
    path = Path(dataset, relative)
    return not path.is_absolute() and ".." not in path.parts


def _find(root: Path, dataset: str, relative: str) -> Path:
    inside = root / dataset / relative
    return inside if inside.exists() or not (root / relative).exists() else root / relative


def _utterance(clip: Path, name: Path, problems: list[Problem]) -> Utterance | None:
    """Return a clip's utterance; None if a problem was added."""
    # …/lrs3_video_seg16s/<name>.mp4 ↔ …/lrs3_text_seg16s/<name>.txt
    videos = clip.parents[len(name.parts) - 1]
    texts = videos.with_name(videos.name.replace("_video_seg", "_text_seg"))
    text_file = texts / name.with_suffix(".txt")
    sound = clip.with_suffix(".wav")
    if not clip.is_file():
        problems.append(Problem(str(clip), "no such clip, but the labels list it"))
        return None
    if not text_file.is_file():
        problems.append(Problem(str(clip), f"its text file {text_file} is missing"))
        return None
    try:
        text = normalise(text_file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        problems.append(Problem(str(clip), f"its text file {text_file} is not UTF-8"))
        return None
    if not text:
        problems.append(Problem(str(clip), "empty transcript"))
        return None
    recording, speaker = clip_ids(name)
    return Utterance(
        id=recording,
        speaker=speaker,
        recording=recording,
        audio=str(sound if sound.is_file() else clip),
        video=str(clip),
        text=text,
        name=name.as_posix(),
        kind="mouth",
    )
