"""Example clips of the demo page, whose landmark files are looked up by the clips' content.

Visitors' clips arrive as copies, without a landmark file beside them.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.corpus.landmarks import find_beside
from espnet_smop.corpus.readers.folder import AUDIO_SUFFIXES, VIDEO_SUFFIXES, media_below


def find_examples(folder: Path, *, video: bool, count: int = 6) -> list[Path]:
    """Return clips of a folder and those below it, spread evenly over them.

    Args:
        folder: as made by stage 1 of a recipe, or any other.
        video: only clips with pictures; otherwise sound files as well.
        count: maximum number.

    Raises:
        ValueError: there is none.
    """
    suffixes = VIDEO_SUFFIXES if video else (*VIDEO_SUFFIXES, *AUDIO_SUFFIXES)
    found = media_below(folder, suffixes)
    if not found:
        raise ValueError(f"--example {folder}: has no {', '.join(suffixes)} file")
    count = min(count, len(found))
    return [found[i * len(found) // count] for i in range(count)]


def landmarks_by_content(clips: Sequence[Path]) -> dict[str, Path]:
    """Return digest of a clip → landmark file, for those that have one beside them."""
    return {digest(clip): file for clip in clips if (file := find_beside(clip)) is not None}


def digest(path: Path) -> str:
    """Return a hash of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
