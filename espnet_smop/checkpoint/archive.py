"""Zip files of packages: written reproducibly, and extracted without trusting them."""

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

SUFFIXES = {".yaml", ".json", ".md", ".txt", ".safetensors", ".model", ".jinja", ".gguf"}
"""Suffixes allowed in packages: no format whose reader executes code."""
WEIGHTS_SUFFIXES = (".safetensors", ".gguf")
"""Suffixes of weight files."""

_MAX_FILES = 1000
_MAX_BYTES = 200 * 2**30
# Weights hardly compress, text by a factor of about 10.
_MAX_RATIO = 100
_SMALL = 2**20


class PackageError(RuntimeError):
    """A package, or a directory to pack, is incomplete, damaged or unsafe."""


def write_zip(directory: Path, out: Path) -> None:
    """Put the files of a directory into a zip file."""
    with zipfile.ZipFile(out, "w") as archive:
        for file in sorted(directory.rglob("*")):
            if file.is_file():
                # A fixed date, so that packing the same again gives the same file.
                entry = zipfile.ZipInfo(file.relative_to(directory).as_posix())
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                stored = file.suffix in WEIGHTS_SUFFIXES
                entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
                entry.file_size = file.stat().st_size
                with file.open("rb") as source, archive.open(entry, "w") as sink:
                    shutil.copyfileobj(source, sink, _SMALL)


def extract(archive: str | Path, directory: Path) -> None:
    """Extract a package's zip file into an empty directory.

    Raises:
        PackageError: not a zip file; or an entry has a path out of the directory, is a link or in
            a format that may execute code; or the content is implausibly large.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            if reason := _reason_to_refuse(file.infolist()):
                raise PackageError(
                    f"{archive} is refused: {reason}. Packages are made by `package pack`"
                )
            for entry in file.infolist():
                if not entry.is_dir():
                    target = directory / entry.filename
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with file.open(entry) as source, target.open("xb") as sink:
                        shutil.copyfileobj(source, sink, _SMALL)
    except PackageError:
        raise
    except Exception as e:  # a damaged archive may raise anything
        raise PackageError(
            f"{archive} cannot be read as a package, a zip file made by `package pack`: {e}"
        ) from None


def _reason_to_refuse(entries: list[zipfile.ZipInfo]) -> str | None:
    if len(entries) > _MAX_FILES:
        return f"it has {len(entries)} entries, more than {_MAX_FILES}"
    seen = set()
    for entry in entries:
        if reason := _reason_to_refuse_entry(entry):
            return reason
        key = str(PurePosixPath(entry.orig_filename)).casefold()
        if key in seen:
            return f"duplicate entry {entry.orig_filename!r}"
        seen.add(key)
    total = sum(entry.file_size for entry in entries)
    if total > _MAX_BYTES:
        return f"it would take {total / 2**30:.0f} GiB, more than {_MAX_BYTES // 2**30}"
    return None


def _reason_to_refuse_entry(entry: zipfile.ZipInfo) -> str | None:
    # As stored: `filename` is cut at a NUL and has other separators replaced.
    stored = entry.orig_filename
    path = PurePosixPath(stored)
    if (
        "\\" in stored
        or ":" in stored
        or any(ord(c) < 32 for c in stored)
        or path.is_absolute()
        or ".." in path.parts
    ):
        return f"the path {stored!r} may lead out of the package"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return f"{stored!r} is a link or another special file"
    if entry.flag_bits & 0x1:
        return f"{stored!r} is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"{stored!r} is neither stored nor deflated"
    if entry.is_dir():
        return None
    if path.suffix not in SUFFIXES:
        return (
            f"{stored!r} has a suffix that does not belong in a package (it may be a pickle or a "
            f"program): allowed are {', '.join(sorted(SUFFIXES))}"
        )
    if entry.file_size > max(_SMALL, _MAX_RATIO * entry.compress_size):
        return f"{stored!r} would grow from {entry.compress_size} to {entry.file_size} bytes"
    return None
