"""Checks of the data preparation before it starts. They need no torch and write nothing."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from espnet_smop.config import ConfigError
from espnet_smop.corpus.landmarks import LandmarkError, check_landmarks_available
from espnet_smop.fileio.table import read_table

_BYTES_PER_CHARACTER = 1000
"""Bytes of features per character of transcript.

Half of the estimate: 115 MB an hour (``docs/performance.md``) at 15 characters a second.
"""


def preparation_problems(
    data_dirs: Sequence[Path], landmarks: str, dump_dir: Path | None = None
) -> list[str]:
    """Return what would make the formatting of data directories fail.

    Args:
        data_dirs: those to format; what an earlier stage makes need not exist yet.
        landmarks: as in ``data_dir format --landmarks``.
        dump_dir: where the features go.
    """
    problems = _detector_problems(data_dirs, landmarks)
    if dump_dir is not None:
        problems += _disk_problems(data_dirs, dump_dir)
    return problems


def existing(directory: Path) -> Path:
    """Return a directory, or its closest parent that exists."""
    return next(p for p in (directory, *directory.absolute().parents) if p.is_dir())


def _detector_problems(data_dirs: Sequence[Path], landmarks: str) -> list[str]:
    """Return a problem if these directories need a face detector that is not installed."""
    known = [d for d in data_dirs if (d / "text").is_file()]
    videos = [d for d in known if (d / "video.scp").is_file()]
    if landmarks == "files" or (known and not videos):
        return []
    # Before stage 1, it is unknown whether the corpus has landmark files.
    if landmarks == "auto" and all(map(_has_landmarks, videos)):
        return []
    try:
        check_landmarks_available(landmarks)
    except LandmarkError as e:
        return [str(e)]
    return []


def _has_landmarks(directory: Path) -> bool:
    files = [directory / name for name in ("landmarks.scp", "video.scp")]
    if not files[0].is_file():
        return False
    found, needed = (read_table(file, ConfigError) for file in files)
    return needed.keys() <= found.keys()


def _disk_problems(data_dirs: Sequence[Path], dump_dir: Path) -> Iterator[str]:
    """Yield a problem if the features still to be made will not fit on the disk."""
    texts = [d / "text" for d in data_dirs if (d / "text").is_file()]
    characters = sum(len(text) for file in texts for text in read_table(file).values())
    needed = characters * _BYTES_PER_CHARACTER
    parent = existing(dump_dir)
    free = shutil.disk_usage(parent).free
    if free < needed:  # only then: a corpus has very many files
        needed -= sum(path.stat().st_size for path in dump_dir.rglob("*") if path.is_file())
    if free < needed:
        yield (
            f"{parent} has {free / 2**30:.1f} GiB free, the features need at least "
            f"{needed / 2**30:.1f}: free some, or choose another --dumpdir"
        )
