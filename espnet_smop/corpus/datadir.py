"""Kaldi data directories: read, write, check, repair.

A directory holds tables of ``KEY VALUE`` lines, UTF-8, sorted by the keys' bytes (C order), each
key once. Some are keyed by utterance (``text utt2spk utt2num_samples utt2num_frames segments``)
and some by recording (``landmarks.scp reco2kind``); ``wav.scp`` and ``video.scp`` are keyed by
recording if there is a ``segments``, and otherwise by utterance (each recording is one utterance).
A corpus has either or both of ``wav.scp`` and ``video.scp``.
"""

from collections.abc import Mapping
from pathlib import Path

from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.fileio.table import read_lines, read_table
from espnet_smop.modality import MODALITIES

MEDIA = tuple(modality.scp for modality in MODALITIES.values())
REQUIRED = ("text", "utt2spk")
PER_UTTERANCE = (*REQUIRED, *(modality.lengths_file for modality in MODALITIES.values()))
PER_RECORDING = ("landmarks.scp", "reco2kind")
KNOWN = (*MEDIA, *PER_UTTERANCE, *PER_RECORDING, "segments")


class DataDirError(RuntimeError):
    """A data directory cannot be used; the message is one line with file and remedy."""


def write_table(path: str | Path, table: Mapping[str, object]) -> None:
    """Write a table sorted in C order, atomically.

    Raises:
        DataDirError: an id or a value would break the table's lines.
    """
    for key, value in table.items():
        if not _fits(key, str(value)):
            raise DataDirError(
                f"{path}: {key!r} {str(value)!r} does not fit into a line of UTF-8 text; rename "
                "the file, or change the id"
            )
    with atomic_write(path) as file:
        # Python compares strings by code point, which is the order of their UTF-8 bytes.
        for key in sorted(table):
            file.write(f"{key} {table[key]}\n" if table[key] != "" else f"{key}\n")


def _fits(key: str, value: str) -> bool:
    try:
        f"{key}{value}".encode()
    except UnicodeEncodeError:
        return False
    broken = not key or any(c in key for c in " \t") or any(c in key + value for c in "\r\n\0")
    return not broken


def speakers(utt2spk: Mapping[str, str]) -> dict[str, str]:
    """Return ``spk2utt``: each speaker's utterances, separated by spaces."""
    utterances: dict[str, list[str]] = {}
    for utterance in sorted(utt2spk):
        utterances.setdefault(utt2spk[utterance], []).append(utterance)
    return {speaker: " ".join(ids) for speaker, ids in utterances.items()}


def write_data_dir(directory: str | Path, tables: Mapping[str, Mapping[str, object]]) -> None:
    """Write a data directory's tables (file name → table) and ``spk2utt``.

    A file of an earlier run that the tables do not name, such as ``segments``, is removed.
    """
    for name in KNOWN:
        if name not in tables:
            Path(directory, name).unlink(missing_ok=True)
    for name, table in tables.items():
        write_table(Path(directory, name), table)
    write_table(Path(directory, "spk2utt"), speakers(tables["utt2spk"]))


def read_data_dir(directory: str | Path) -> dict[str, dict[str, str]]:
    """Read all known tables that exist.

    Raises:
        DataDirError: a required table is missing.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise DataDirError(f"{directory}: no such data directory; run stage 1 first")
    if missing := _missing(directory):
        raise DataDirError(f"{missing[0]}; run the stage that makes it")
    return _read_tables(directory)


def _missing(directory: Path) -> list[str]:
    """Return a line for each missing table that every data directory must have."""
    lines = [f"{directory}/{n}: missing" for n in REQUIRED if not (directory / n).is_file()]
    if not any((directory / name).is_file() for name in MEDIA):
        lines.append(f"{directory}: has neither {' nor '.join(MEDIA)}")
    return lines


def _read_tables(directory: Path, *, keep_first: bool = False) -> dict[str, dict[str, str]]:
    return {
        name: read_table(directory / name, DataDirError, keep_first=keep_first)
        for name in KNOWN
        if (directory / name).is_file()
    }


def _recording(segment: str) -> str:
    return segment.split()[0] if segment else ""


def _removals(tables: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the utterances that cannot be used, with the reason."""
    segments = tables.get("segments")
    media = [name for name in MEDIA if name in tables]
    removed = {}
    everyone = set().union(*(tables[n] for n in PER_UTTERANCE if n in tables))
    everyone = everyone.union(*(tables[n] for n in media) if segments is None else (segments,))
    for utterance in sorted(everyone):
        recording = utterance
        if segments is not None:
            if utterance not in segments:
                removed[utterance] = "not in segments"
                continue
            fields = segments[utterance].split()
            recording = _recording(segments[utterance])
            if not _is_segment(fields):
                removed[utterance] = f"bad segment '{segments[utterance]}'"
                continue
        for name, key in [
            *((n, recording) for n in media),
            *((n, utterance) for n in PER_UTTERANCE if n in tables),
        ]:
            if key not in tables[name]:
                removed[utterance] = f"not in {name}"
                break
            if tables[name][key] == "":
                removed[utterance] = f"empty in {name}"
                break
    return removed


def _is_segment(fields: list[str]) -> bool:
    try:
        start, end = float(fields[1]), float(fields[2])
    except (IndexError, ValueError):
        return False
    # In Kaldi, -1 is the end of the recording.
    return len(fields) == 3 and start >= 0 and (end > start or end == -1)


def check(directory: str | Path) -> list[str]:
    """Return the problems of a data directory, one line each."""
    directory = Path(directory)
    problems = _missing(directory)
    if problems:
        return problems
    for name in (*KNOWN, "spk2utt"):
        path = directory / name
        if not path.is_file():
            continue
        keys = [key for _, key, _ in read_lines(path, DataDirError)]
        if not _is_plain(path):
            problems.append(f"{path}: has tabs, CRLF or a byte-order mark")
        if keys != sorted(keys):
            problems.append(f"{path}: not sorted (C order)")
        if len(set(keys)) != len(keys):
            double = next(k for i, k in enumerate(keys) if k in keys[:i])
            problems.append(f"{path}: duplicate id {double}")
    tables = _read_tables(directory, keep_first=True)
    problems += [f"{directory}: utterance {u} is {why}" for u, why in _removals(tables).items()]
    spk2utt = directory / "spk2utt"
    if not spk2utt.is_file() or (
        read_table(spk2utt, DataDirError, keep_first=True) != speakers(tables["utt2spk"])
    ):
        problems.append(f"{spk2utt}: does not match utt2spk")
    if not tables["text"]:
        problems.append(f"{directory}/text: no utterance")
    return problems


def _is_plain(path: Path) -> bool:
    """Return whether a table is free of bytes that only this package's reader accepts."""
    content = path.read_bytes()
    gaps = (line.partition(b" ")[0] for line in content.split(b"\n"))
    return not (
        content.startswith(b"\xef\xbb\xbf") or b"\r" in content or any(b"\t" in g for g in gaps)
    )


def fix(directory: str | Path) -> dict[str, str]:
    """Sort a data directory's tables and keep the utterances that all of them have.

    Of lines with the same key, the first is kept. Recordings that no utterance uses are removed.

    Returns:
        The utterances removed, with the reason.

    Raises:
        DataDirError: a required table is missing, or no utterance would be left.
    """
    directory = Path(directory)
    if missing := _missing(directory):
        raise DataDirError(f"{missing[0]}; run the stage that makes it")
    tables = _read_tables(directory, keep_first=True)
    removed = _removals(tables)
    kept = set(tables["text"]) - set(removed)
    if not kept:
        reasons = "; ".join(f"{u} {why}" for u, why in list(removed.items())[:3])
        raise DataDirError(f"{directory}: no utterance would be left ({reasons})")
    segments = tables.get("segments")
    recordings = kept if segments is None else {_recording(segments[u]) for u in kept}
    for name, table in tables.items():
        keep = recordings if name in (*MEDIA, *PER_RECORDING) else kept
        tables[name] = {k: v for k, v in table.items() if k in keep}
    write_data_dir(directory, tables)
    return removed
