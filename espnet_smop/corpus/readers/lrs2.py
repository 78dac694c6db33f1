"""LRS2 as distributed: clips with a text file each, and the lists of its sets.

    mvlrs_v1/main|pretrain/<id>/<clip>.{mp4,txt}
    {pretrain,train,val,test}.txt

A line of a list is ``<id>/<clip>``; in ``test.txt`` a noise label follows, which is ignored.
``pretrain.txt`` lists clips of ``pretrain/``, the others clips of ``main/``, which holds all three
sets. The lists are downloaded separately from the clips; they may be beside ``mvlrs_v1/`` or in it.
Text files are as in LRS3. LRS2 names no speakers: an ``<id>`` counts as one.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.corpus.readers.abs_reader import CorpusReader
from espnet_smop.corpus.readers.lrs3 import add_landmarks_dir, add_max_seconds, read_clip
from espnet_smop.corpus.utterance import Corpus, CorpusError, Problem, Utterance

TRAIN_PARTS = ("pretrain", "train")
_FOLDERS = {"pretrain": "pretrain", "train": "main", "val": "main", "test": "main"}
_LINE = re.compile(r"([\w-]{1,100}/[\w-]{1,100})(?:\s+\S+)?", re.ASCII)


class LRS2Reader(CorpusReader):
    """LRS2 as distributed: ``mvlrs_v1/main|pretrain/<id>/<clip>.{mp4,txt}`` and its lists.

    Example::

        python -m espnet_smop.bin.prepare_corpus lrs2 --root DIR --out_dir data
    """

    def __init__(
        self,
        *,
        train_parts: Sequence[str] = TRAIN_PARTS,
        max_seconds: float = 16.0,
        landmarks_dir: Path | None = None,
    ):
        """Configure the reader.

        Args:
            train_parts: the lists for training.
            max_seconds: longer training clips with a word table are cut at word times; the ids
                of the pieces end in ``_<start>_<end>``, in hundredths of seconds.
            landmarks_dir: directory of landmark files in the layout of ``mvlrs_v1/``; None looks
                beside the clips.
        """
        self.train_parts = train_parts
        self.max_seconds = max_seconds
        self.landmarks_dir = landmarks_dir

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add ``--train_parts``, ``--max_seconds`` and ``--landmarks_dir``."""
        parser.add_argument(
            "--train_parts",
            nargs="+",
            choices=TRAIN_PARTS,
            default=list(TRAIN_PARTS),
            help="lists of LRS2 for training: both have 223 h, train alone 28 h",
        )
        add_max_seconds(parser)
        add_landmarks_dir(parser)

    def read(self, root: Path) -> Corpus:
        """Read the corpus; see `CorpusReader`. ``val.txt`` lists the validation clips."""
        tree = root / "mvlrs_v1" if (root / "mvlrs_v1").is_dir() else root
        clips = _read_lists(root, tree, (*self.train_parts, "val", "test"))
        corpus = Corpus("LRS2 as distributed (mvlrs_v1/ and its lists)", valid=[])
        for part in self.train_parts:
            utterances, problems = self._read(tree, clips[part], self.max_seconds)
            corpus.train = [*corpus.train, *utterances]
            corpus.train_problems = [*corpus.train_problems, *problems]
        corpus.valid, problems = self._read(tree, clips["val"], None)
        corpus.train_problems = [*corpus.train_problems, *problems]
        # Test clips are never cut: their results are compared with the literature's.
        corpus.test, corpus.test_problems = self._read(tree, clips["test"], None)
        return corpus

    def _read(
        self, tree: Path, clips: Sequence[Path], max_seconds: float | None
    ) -> tuple[list[Utterance], list[Problem]]:
        utterances: list[Utterance] = []
        problems: list[Problem] = []
        for clip in clips:
            if not clip.is_file():
                problems.append(Problem(str(clip), "no such clip, but its set's list names it"))
                continue
            found, wrong = read_clip(tree, clip, max_seconds, self.landmarks_dir)
            utterances += found
            problems += wrong
        return utterances, problems


def _read_lists(root: Path, tree: Path, names: Sequence[str]) -> dict[str, list[Path]]:
    """Return list → clips; a clip of two sets, or listed twice, is an error."""
    clips: dict[str, list[Path]] = {}
    seen: dict[Path, str] = {}
    for name in names:
        folder = tree / _FOLDERS[name]
        path = next(
            (d / f"{name}.txt" for d in (tree, root) if (d / f"{name}.txt").is_file()), None
        )
        if path is None or not folder.is_dir():
            lacking = f"{name}.txt" if path is None else f"{folder.name}/"
            raise CorpusError(
                f"{tree}: has no {lacking}; give the directory that holds LRS2's mvlrs_v1/ and "
                "its lists pretrain.txt, train.txt, val.txt and test.txt"
            )
        clips[name] = []
        for number, line in enumerate(_lines(path), 1):
            if not line:
                continue
            match = _LINE.fullmatch(line)
            if not match:
                raise CorpusError(f"{path}:{number}: expected ID/CLIP; download the list again")
            clip = folder / f"{match[1]}.mp4"
            if clip in seen:
                raise CorpusError(
                    f"{path}:{number}: {match[1]} is also listed at {seen[clip]}; remove one line"
                )
            seen[clip] = f"{path.name}:{number}"
            clips[name].append(clip)
        if not clips[name]:
            raise CorpusError(f"{path}: lists no clip; download it again")
    return clips


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise CorpusError(f"{path}: is not UTF-8; download the list again") from None
    return [line.strip() for line in text.split("\n")]
