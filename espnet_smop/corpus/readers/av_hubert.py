"""The files that AV-HuBERT's preparation makes from LRS3 or another corpus.

    433h_data/{train,valid,test}.{tsv,wrd}   (or 30h_data/, or beside the media)
    video/<part>/<speaker>/<clip>.mp4        mouth crops, 96×96
    audio/<part>/<speaker>/<clip>.wav

A ``.tsv`` begins with a line holding ``/``; its other lines are id, video, audio, video frames and
audio samples, separated by tabs. A ``.wrd`` holds the text of each. If the paths in a ``.tsv`` do
not exist on this machine, the clips are looked up under ``video/`` and ``audio/``.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.corpus.readers.abs_reader import CorpusReader
from espnet_smop.corpus.readers.lrs3 import add_train_parts
from espnet_smop.corpus.text import normalise
from espnet_smop.corpus.utterance import Corpus, CorpusError, Problem, Utterance, clip_ids


def _manifests(root: Path) -> Path | None:
    candidates = (root / "433h_data", root / "30h_data", root)
    return next((d for d in candidates if (d / "train.tsv").is_file()), None)


class AVHuBERTReader(CorpusReader):
    """A corpus prepared by AV-HuBERT: mouth crops, listed by ``433h_data/*.tsv``.

    Example::

        python -m espnet_smop.bin.prepare_corpus av_hubert --root DIR --out_dir data
    """

    def __init__(self, *, train_parts: Sequence[str] | None = None):
        """Configure the reader.

        Args:
            train_parts: the parts for training; None takes all.
        """
        self.train_parts = train_parts

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add ``--train_parts``."""
        add_train_parts(parser)

    @staticmethod
    def is_here(root: Path) -> bool:
        """Whether a directory has this layout."""
        return _manifests(root) is not None

    def read(self, root: Path) -> Corpus:
        """Read the corpus; see `CorpusReader`. ``valid.tsv``, if it exists, is for validation."""
        folder = _manifests(root)
        if folder is None:
            raise CorpusError(f"{root}: has no 433h_data/train.tsv; prepare the corpus again")
        parts = self.train_parts
        wanted = None if parts is None else {*parts, *(f"short-{part}" for part in parts)}
        train, problems = _read_set(root, folder / "train.tsv", wanted)
        valid, test, test_problems = None, [], []
        if (folder / "valid.tsv").is_file():
            valid, more = _read_set(root, folder / "valid.tsv", None)
            problems += more
        if (folder / "test.tsv").is_file():
            test, test_problems = _read_set(root, folder / "test.tsv", None)
        return Corpus(
            f"AV-HuBERT's prepared files ({folder.name}/*.tsv), mouth crops ready",
            train=train,
            valid=valid,
            test=test,
            train_problems=problems,
            test_problems=test_problems,
        )


def _read_set(
    root: Path, manifest: Path, wanted: set[str] | None
) -> tuple[list[Utterance], list[Problem]]:
    text_file = manifest.with_suffix(".wrd")
    if not text_file.is_file():
        raise CorpusError(f"{text_file}: no such file; it holds the texts of {manifest.name}")
    rows, texts = _lines(manifest)[1:], _lines(text_file)
    if len(rows) != len(texts):
        raise CorpusError(
            f"{manifest} lists {len(rows)} clips but {text_file.name} has {len(texts)} lines; "
            "prepare them again"
        )
    utterances, problems = [], []
    for row, line in zip(rows, texts, strict=True):
        fields = row.split("\t")
        if len(fields) < 3 or not Path(fields[0]).parts:
            raise CorpusError(f"{manifest}: line '{row}' has no id, video and audio; prepare again")
        name = Path(fields[0])
        if wanted is not None and name.parts[0] not in wanted:
            continue
        video = _find(fields[1], root / "video" / f"{name}.mp4")
        audio = _find(fields[2], root / "audio" / f"{name}.wav")
        text = normalise(line)
        if video is None or audio is None or not text:
            lost = "video" if video is None else "audio"
            reason = f"no such {lost} file" if text else "empty transcript"
            problems.append(Problem(fields[0], reason))
            continue
        recording, speaker = clip_ids(name)
        utterances.append(
            Utterance(
                id=recording,
                speaker=speaker,
                recording=recording,
                audio=str(audio),
                video=str(video),
                text=text,
                name=name.as_posix(),
                kind="mouth",
            )
        )
    return utterances, problems


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise CorpusError(f"{path}: is not UTF-8; prepare the corpus again") from None
    return text.removesuffix("\n").split("\n") if text else []


def _find(listed: str, here: Path) -> Path | None:
    return next((p for p in (Path(listed), here) if p.is_file()), None)
