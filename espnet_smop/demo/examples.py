"""Clips that the demo page offers, with landmark files that are found by the clips' content.

Visitors' clips arrive as copies, so that a landmark file is no longer beside them.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.corpus.landmarks import find_beside
from espnet_smop.corpus.readers.folder import AUDIO_SUFFIXES, VIDEO_SUFFIXES, media_below


def find_examples(folder: Path, *, video: bool, count: int = 6) -> list[Path]:
    """Return clips of a folder and those below it, spread evenly over them.

    Args:
        folder: as stage 1 of a recipe makes it, or any other.
        video: clips with pictures; otherwise files of sound will do as well.
        count: at most.

    Raises:
        ValueError: there is none.
    """
    suffixes = VIDEO_SUFFIXES if video else (*VIDEO_SUFFIXES, *AUDIO_SUFFIXES)
    found = media_below(folder, suffixes)
    if not found:
        raise ValueError(f"--example {folder}: has no file in {', '.join(suffixes)}")
    count = min(count, len(found))
    return [found[i * len(found) // count] for i in range(count)]


def landmarks_by_content(clips: Sequence[Path]) -> dict[str, Path]:
    """Return digest of a clip → landmark file, for those that have one beside them."""
    return {digest(clip): file for clip in clips if (file := find_beside(clip)) is not None}


def digest(path: Path) -> str:
    """Return a name for a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
