"""Detection of changed files."""

from pathlib import Path


def file_stamp(path: str) -> list:
    """Return path, size in bytes and modification time in ns; size and time None if missing."""
    try:
        status = Path(path).stat()
    except OSError:
        return [path, None, None]
    return [path, status.st_size, status.st_mtime_ns]
