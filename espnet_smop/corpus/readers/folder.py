"""A folder of clips with a text file each: the layout of a corpus of your own.

    <speaker>/…/<clip>.{mp4,wav}
    <speaker>/…/<clip>.txt

A text file holds the transcript. Where a clip has a video and a sound file, its sound is read from
the sound file. Landmark files (``<clip>.npy``, ``.npz`` or ``.pkl``) beside a video are used.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from espnet_smop.command import str2bool
from espnet_smop.corpus.landmarks import find_beside
from espnet_smop.corpus.media import MediaError, stream_types
from espnet_smop.corpus.readers.abs_reader import CorpusReader
from espnet_smop.corpus.text import normalise
from espnet_smop.corpus.utterance import (
    Corpus,
    CorpusError,
    Problem,
    UnusableClipError,
    Utterance,
    is_one_line,
    safe_id,
)
from espnet_smop.fileio.table import read_table
from espnet_smop.modality import AUDIO, MODALITIES, VIDEO

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".mpg")
"""Suffixes of files with pictures and perhaps sound, in order of preference."""
AUDIO_SUFFIXES = (".wav", ".flac", ".m4a", ".mp3", ".ogg")
"""Suffixes of files with sound, in order of preference."""


def media_below(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the files in a folder and those below it that have one of these suffixes, in order.

    Hidden files are left out: partial files, or metadata of other systems.
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )


class FolderReader(CorpusReader):
    """A folder of NAME.mp4 (or .wav) with NAME.txt beside it, in a folder for each speaker.

    Clips directly below the folder have one speaker each, unless ``--speakers`` names others.
    Test and validation sets are whole speakers, or the clips in lists.

    Example::

        python -m espnet_smop.bin.prepare_corpus folder --root DIR --out_dir data \
            --test_list test_clips.txt
    """

    def __init__(
        self,
        *,
        modalities: Sequence[str] | None = None,
        speakers: Path | None = None,
        normalise_text: bool = False,
        mouth_crops: bool = False,
    ):
        """Configure the reader.

        Args:
            modalities: ``audio``, ``video`` or both, to read the corpus for; None: those of its
                first clip.
            speakers: table of ``CLIP SPEAKER`` lines; a clip is named by its path below the root
                without suffix, or by the last part of that. None: the first folder of the path.
            normalise_text: normalise transcripts as for LRS3 (`corpus.text`).
            mouth_crops: videos are 96×96 mouth crops already.
        """
        self.modalities = modalities
        self.speakers = speakers
        self.normalise_text = normalise_text
        self.kind = "mouth" if mouth_crops else "face"

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the reader's options; without a list, a tenth of the clips is the test set."""
        parser.add_argument(
            "--modalities",
            nargs="+",
            choices=list(MODALITIES),
            help="read the corpus for these only (default: those of its first clip)",
        )
        parser.add_argument(
            "--speakers",
            type=Path,
            metavar="FILE",
            help="table of `CLIP SPEAKER` lines, the clip as its path below --root without suffix "
            "or as file name without suffix (default: the speaker is the first folder)",
        )
        parser.add_argument(
            "--normalise_text",
            type=str2bool,
            default=False,
            help="lower the case of transcripts and drop {…} and <…>, as for LRS3; otherwise they "
            "are not changed",
        )
        parser.add_argument(
            "--mouth_crops",
            type=str2bool,
            default=False,
            help="the videos are 96×96 mouth crops already",
        )
        parser.set_defaults(test_share=0.1, valid_share=0.1)

    def read(self, root: Path) -> Corpus:
        """Read the folder; see `CorpusReader`."""
        clips: dict[PurePath, dict[str, Path]] = {}
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() in (*VIDEO_SUFFIXES, *AUDIO_SUFFIXES, ".txt"):
                name = path.relative_to(root).with_suffix("")
                clips.setdefault(name, {})[path.suffix.lower()] = path
        clips = {name: files for name, files in clips.items() if files.keys() != {".txt"}}
        if not clips:
            raise CorpusError(
                f"{root}: has no clip; expected NAME.mp4 or NAME.wav with NAME.txt beside it"
            )
        modalities = self.modalities or _modalities_of(next(iter(clips.values())))
        speakers = read_table(self.speakers, CorpusError) if self.speakers else None
        corpus = Corpus(f"a folder of {len(clips)} clips, read for {' and '.join(modalities)}")
        utterances, problems = [], []
        for name, files in clips.items():
            try:
                utterances.append(self._utterance(name, files, modalities, speakers))
            except UnusableClipError as e:
                problems.append(e.problem)
            except CorpusError as e:
                path = str(root / name).encode("unicode_escape", "surrogateescape").decode()
                problems.append(Problem(path, str(e)))
        corpus.train, corpus.train_problems = utterances, problems
        return corpus

    def _utterance(
        self,
        name: PurePath,
        files: Mapping[str, Path],
        modalities: Sequence[str],
        speakers: Mapping[str, str] | None,
    ) -> Utterance:
        if not is_one_line(str(name)):
            raise CorpusError("its name is not one line of UTF-8; rename it")
        if ".txt" not in files:
            raise CorpusError("has no text file beside it")
        video = _first(files, VIDEO_SUFFIXES) if VIDEO.name in modalities else None
        audio = _first(files, AUDIO_SUFFIXES + VIDEO_SUFFIXES) if AUDIO.name in modalities else None
        for modality, path in ((VIDEO.name, video), (AUDIO.name, audio)):
            if modality in modalities and path is None:
                raise CorpusError(f"has no {modality} file")
        id_, speaker = _id_and_speaker(name, speakers)
        landmarks = find_beside(video) if video else None
        return Utterance(
            id=id_,
            speaker=speaker,
            recording=id_,
            audio=str(audio) if audio else None,
            video=str(video) if video else None,
            text=self._text(files[".txt"]),
            name=name.as_posix(),
            landmarks=str(landmarks) if landmarks else None,
            kind=self.kind,
        )

    def _text(self, path: Path) -> str:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as e:
            cause = "is not UTF-8" if isinstance(e, UnicodeDecodeError) else e.strerror
            raise UnusableClipError(path, cause) from None
        text = normalise(text) if self.normalise_text else " ".join(text.split())
        if not text:
            raise CorpusError("empty transcript")
        return text


def _first(files: Mapping[str, Path], suffixes: Sequence[str]) -> Path | None:
    return next((files[suffix] for suffix in suffixes if suffix in files), None)


def _modalities_of(files: Mapping[str, Path]) -> list[str]:
    """Return the modalities that a clip's files hold."""
    found: set[str] = set()
    for path in files.values():
        if path.suffix.lower() != ".txt":
            try:
                found |= stream_types(path)
            except MediaError as e:
                raise CorpusError(f"{e}; or give --modalities") from None
    return [name for name in MODALITIES if name in found]


def _id_and_speaker(name: PurePath, speakers: Mapping[str, str] | None) -> tuple[str, str]:
    id_ = safe_id("_".join(name.parts))
    if speakers is None:
        # Kaldi's convention for unknown speakers: each utterance is its own.
        return id_, safe_id(name.parts[0]) if len(name.parts) > 1 else id_
    speaker = speakers.get(name.as_posix(), speakers.get(name.name))
    if not speaker:
        raise CorpusError("--speakers does not name it")
    speaker = safe_id(speaker)
    # Kaldi's tables are sorted by speaker if ids begin with the speaker.
    return id_ if id_.startswith(f"{speaker}_") else f"{speaker}_{id_}", speaker
