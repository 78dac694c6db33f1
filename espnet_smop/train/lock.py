"""Locks, so that only one process trains in an experiment's directory or makes a feature cache."""

import contextlib
import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

LOCK = ".lock"
"""The locked file. It is never removed; the lock ends with its process."""

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


class ExperimentInUseError(RuntimeError):
    """Another process is training in the directory; the message says which."""


@contextlib.contextmanager
def experiment_lock(directory: str | Path) -> Iterator[None]:
    """Lock an experiment's directory for this process.

    The operating system releases the lock however the process ends, and child processes, such as
    the data loader's, do not inherit it.

    Raises:
        ExperimentInUseError: another process holds the lock.
    """
    path = Path(directory) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        try:
            _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB, "do not start a second run here")
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise ExperimentInUseError(
                f"{directory}: {file.read().strip() or 'another process'} trains here; wait until "
                "it ends, or choose another --avsr_tag"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


@contextlib.contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Wait for the holder of the lock on the file ``path``, then lock it; create it if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        _lock(file, fcntl.LOCK_EX, "start one training at a time")
        yield


def _lock(file: IO, operation: int, advice: str) -> None:
    """Lock a file, or warn where the file system has no locks."""
    try:
        fcntl.lockf(file, operation)
    except OSError as e:
        if e.errno not in _NO_LOCKS:
            raise
        logging.warning("%s: the file system has no locks; %s", file.name, advice)


def lock_holder(directory: str | Path) -> str | None:
    """Return the process that trains in an experiment's directory, or None; write nothing."""
    path = Path(directory) / LOCK
    if not path.is_file():
        return None
    with open(path, encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return file.read().strip() or "another process"
        except OSError as e:
            if e.errno not in _NO_LOCKS:
                raise
    return None
