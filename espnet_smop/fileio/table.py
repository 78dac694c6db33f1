"""The one reader of Kaldi's tables: an id, a gap, and the rest of the line."""

import re
from collections.abc import Iterator
from pathlib import Path

# Only blanks and tabs: texts and names may hold other white space and control characters.
_GAP = re.compile(r"[ \t]+")


class TableError(RuntimeError):
    """A table cannot be read; the message is one line with file and remedy."""


def read_table(
    path: str | Path, error: type[Exception] = TableError, *, keep_first: bool = False
) -> dict[str, str]:
    """Read a table: ``text``, ``wav.scp``, ``utt2spk`` and the like.

    Args:
        path: the table, as `read_lines` reads it.
        error: raised if the file cannot be read or is not a table.
        keep_first: keep the first of several lines with the same id; otherwise they are an
            error.

    Returns:
        id → rest of the line, which may hold spaces or be empty, in the order of the file.
    """
    table: dict[str, str] = {}
    for number, key, value in read_lines(path, error):
        if key in table and not keep_first:
            raise error(
                f"{path}:{number}: duplicate id {key}; run "
                f"`python -m espnet_smop.bin.data_dir fix {Path(path).parent}`"
            )
        table.setdefault(key, value)
    return table


def read_lines(
    path: str | Path, error: type[Exception] = TableError
) -> Iterator[tuple[int, str, str]]:
    """Yield number, id and value (may be empty) of each line that is not empty.

    Fields are separated by blanks or tabs; lines end as on Unix or Windows; a byte-order mark at
    the beginning is ignored.

    Args:
        path: the table.
        error: raised, with a one-line message, if the file cannot be read or is not UTF-8
            text.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as e:
        raise error(f"{path}: {e.strerror}; run the stage that makes it") from None
    except UnicodeDecodeError as e:
        line = e.object[: e.start].count(b"\n") + 1
        raise error(f"{path}:{line}: is not UTF-8; convert the file to UTF-8") from None
    for number, line in enumerate(text.split("\n"), 1):
        key, *value = _GAP.split(line.strip(" \t\r"), maxsplit=1)
        if "\0" in line:
            raise error(f"{path}:{number}: has a NUL byte, so it is not text; make the file again")
        if key:
            yield number, key, value[0] if value else ""
