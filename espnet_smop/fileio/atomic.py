"""Files and directories that appear under their name only when they are complete."""

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PARTIAL = ".part-"
"""Prefix of the name of a file that is being written, or that a killed process left."""


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` with its suffix; on success it becomes ``path``.

    Parent directories are created. On an exception the temporary file is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{PARTIAL}{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """Open a file for writing (text as UTF-8) that appears only when complete (`atomic_path`)."""
    with (
        atomic_path(path) as temporary,
        open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file,
    ):
        yield file


def check_replaceable(directory: str | Path, *signs: str) -> None:
    """Refuse to replace a directory that does not hold the command's own output.

    Args:
        directory: may be missing or empty.
        signs: glob patterns; the command's own output matches one of them.

    Raises:
        ValueError: the directory has only other files.
    """
    directory = Path(directory)
    if not directory.exists() or not any(directory.iterdir()):
        return
    if not any(True for sign in signs for _ in directory.glob(sign)):
        raise ValueError(
            f"{directory} would be replaced, but it has other files (no {signs[0]}): choose "
            "another --output_dir"
        )


@contextlib.contextmanager
def atomic_directory(directory: str | Path) -> Iterator[Path]:
    """Yield an empty directory that replaces ``directory`` when the block succeeds.

    A block that fails, or a process that is killed, leaves ``directory`` as it was; the killed
    process's temporary directory remains beside it, named ``.NAME.*``.
    """
    directory = Path(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    new = temporary / "new"
    new.mkdir()
    try:
        yield new
        old = temporary / "old"
        if directory.exists():
            os.rename(directory, old)
        try:
            os.rename(new, directory)
        except OSError:
            if old.exists() and not directory.exists():
                os.rename(old, directory)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
