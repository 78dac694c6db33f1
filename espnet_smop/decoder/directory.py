"""Directories that are there completely or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_at_once(directory: str | Path) -> Iterator[Path]:
    """Yield an empty directory that takes the place of ``directory`` when the block succeeds.

    A block that fails, or a process that is killed, leaves ``directory`` as it was; the killed
    process's temporary directory lies beside it, named ``.NAME.*``.
    """
    directory = Path(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    new = temporary / "new"
    new.mkdir()
    try:
        yield new
        if directory.exists():
            os.rename(directory, temporary / "old")
        os.rename(new, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
