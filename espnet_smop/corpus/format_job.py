"""One of several jobs that turn a data directory into FLAC files and mouth crops, clip by clip.

    out_dir/data/<speaker>/<utterance>.{flac,mkv}    the clips
    out_dir/records/<job>.jsonl                      one line per utterance: done, or why not

A clip is done when its files exist and a record shows that they were made from the same source
files, cut and settings. Files appear under their names only when complete, and records
after them, so that a killed job leaves nothing half-written: the next run, with any number of jobs,
makes the missing files. Broken clips are retried.
"""

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from espnet_smop.corpus import datadir
from espnet_smop.corpus.clips import ClipError, Recording, cut_clips, write_clip
from espnet_smop.corpus.landmarks import LandmarkError, LandmarkProvider
from espnet_smop.corpus.media import MediaError
from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.fileio.stamp import file_stamp
from espnet_smop.fileio.video import SUFFIX
from espnet_smop.modality import AUDIO, FRAME_RATE, MODALITIES, VIDEO, Modality

_PROGRESS_SECONDS = 5


@dataclasses.dataclass(frozen=True)
class Record:
    """The outcome for an utterance.

    ``key`` identifies its sources, cut and settings; ``time`` is when it was made (seconds since
    the epoch); ``samples`` and ``frames`` are its lengths, 0 without that modality; ``error`` is
    empty for a good one, and ``notes`` describe what was done to keep it.
    """

    utterance: str
    key: str
    time: float
    samples: int = 0
    frames: int = 0
    error: str = ""
    notes: str = ""

    def length(self, modality: Modality) -> int:
        """Return the utterance's length in a modality's own unit."""
        return {AUDIO.name: self.samples, VIDEO.name: self.frames}[modality.name]

    @property
    def seconds(self) -> float:
        """Duration of the longer modality."""
        return max(self.length(modality) / modality.rate for modality in MODALITIES.values())


def clip_paths(
    recording: Recording, out_dir: Path, speaker: str, utterance: str
) -> dict[str, Path]:
    """Return the paths of an utterance's sound and mouth crops, for its modalities."""
    folder = out_dir / "data" / speaker
    paths = {}
    if recording.audio is not None:
        paths[AUDIO.name] = folder / f"{utterance}.flac"
    if recording.video is not None:
        paths[VIDEO.name] = folder / f"{utterance}{SUFFIX}"
    return paths


def recordings(tables: Mapping[str, Mapping[str, str]]) -> list[Recording]:
    """Return a data directory's recordings with their segments.

    Raises:
        DataDirError: the id of an utterance or speaker is a path: its clips would be elsewhere.
    """
    for utterance in tables["text"]:
        speaker = tables["utt2spk"][utterance]
        if "/" in utterance + speaker or speaker in (".", ".."):
            raise datadir.DataDirError(
                f"utterance {utterance!r} of speaker {speaker!r}: ids become names of files and "
                "must not have '/', nor may a speaker be '.' or '..'; rename them in text, utt2spk "
                "and the other tables"
            )
    cuts: dict[str, list[tuple[str, int, int | None]]] = {}
    for utterance in tables["text"]:
        recording, start, end = utterance, 0, None
        if "segments" in tables:
            recording, begin, until = tables["segments"][utterance].split()
            start = round(float(begin) * FRAME_RATE)
            end = None if float(until) < 0 else round(float(until) * FRAME_RATE)
        cuts.setdefault(recording, []).append((utterance, start, end))
    kinds = tables.get("reco2kind", {})
    return [
        Recording(
            name,
            *(tables[m.scp][name] if m.scp in tables else None for m in (AUDIO, VIDEO)),
            kinds.get(name, "face"),
            tuple(cuts[name]),
        )
        for name in sorted(cuts)
    ]


def keys(recording: Recording, landmarks: str | None, settings: str) -> dict[str, str]:
    """Return each utterance's key: it changes with the source files, the cut and the settings."""
    sources = [file_stamp(p) for p in (recording.audio, recording.video, landmarks) if p]
    return {
        utterance: hashlib.sha256(
            json.dumps([sources, recording.kind, start, end, settings]).encode()
        ).hexdigest()[:16]
        for utterance, start, end in recording.segments
    }


def read_records(out_dir: Path) -> Iterator[Record]:
    """Yield the records of all jobs of this and earlier runs."""
    for path in sorted(Path(out_dir, "records").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                yield Record(**json.loads(line))
            except (ValueError, TypeError):
                continue  # the line at which a job was killed


def is_done(record: Record | None, key: str, files: Iterable[Path]) -> bool:
    """Return whether the latest success of an utterance is still valid."""
    return record is not None and record.key == key and all(file.is_file() for file in files)


def latest_records(records: Iterable[Record]) -> tuple[dict[str, Record], dict[str, Record]]:
    """Return each utterance's latest success, which made its files, and latest failure."""
    good: dict[str, Record] = {}
    failed: dict[str, Record] = {}
    for record in sorted(records, key=lambda record: record.time):
        (failed if record.error else good)[record.utterance] = record
    return good, failed


def run_job(
    data_dir: Path,
    out_dir: Path,
    *,
    landmarks: Callable[[Mapping[str, str]], LandmarkProvider],
    settings: str,
    num_jobs: int = 1,
    job: int = 1,
    keep_all: bool = False,
) -> tuple[int, int]:
    """Format every ``num_jobs``-th recording of a data directory, starting at the ``job``-th.

    Args:
        data_dir: from stage 1.
        out_dir: where clips and records go.
        landmarks: builds the provider from the table of landmark files; called only when there
            is something to do.
        settings: other settings that affect the result; if they change, clips are made again.
        num_jobs: number of jobs.
        job: number of this job, from 1.
        keep_all: for a test set (`cut_clips`).

    Returns:
        The number of utterances assigned to this job, and how many of them are broken.
    """
    tables = datadir.read_data_dir(data_dir)
    write_settings(out_dir, settings=settings, keep_all=keep_all)
    paths = tables.get("landmarks.scp", {})
    known, _ = latest_records(read_records(out_dir))
    mine = recordings(tables)[job - 1 :: num_jobs]
    utt2spk = tables["utt2spk"]
    broken = 0
    todo: list[tuple[Recording, dict[str, str]]] = []
    for recording in mine:
        wanted = keys(recording, paths.get(recording.id), settings)
        missing = [
            u
            for u, key in wanted.items()
            if not is_done(
                known.get(u),
                key,
                clip_paths(recording, out_dir, utt2spk[u], u).values(),
            )
        ]
        if missing:
            segments = tuple(s for s in recording.segments if s[0] in missing)
            todo.append((dataclasses.replace(recording, segments=segments), wanted))
    total = sum(len(r.segments) for r in mine)
    count = sum(len(r.segments) for r, _ in todo)
    name = f"{data_dir} job {job}/{num_jobs}"
    print(f"{name}: {count} of {total} utterances to do", file=sys.stderr)
    if not todo:
        return total, 0
    provider = landmarks(paths)
    record_file = out_dir / "records" / f"{job}.jsonl"
    record_file.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(record_file, "a+", encoding="utf-8") as log,
        tqdm(desc=name, total=count, unit="utt", mininterval=_PROGRESS_SECONDS) as progress,
    ):
        _end_last_line(log)
        for recording, wanted in todo:
            for record in _format(recording, wanted, provider, keep_all, out_dir, utt2spk):
                log.write(json.dumps(dataclasses.asdict(record), ensure_ascii=False) + "\n")
                log.flush()
                if record.error:
                    broken += 1
                    tqdm.write(f"broken: {record.utterance}: {record.error}", file=sys.stderr)
            progress.update(len(recording.segments))
    print(f"{name}: {count} utterances done, {broken} of them broken", file=sys.stderr)
    return total, broken


def _end_last_line(log) -> None:
    """End a line that a killed run left incomplete, so that the next record starts a new one."""
    log.seek(0, 2)
    if log.tell():
        log.write("\n")


def _format(
    recording: Recording,
    wanted: Mapping[str, str],
    provider: LandmarkProvider,
    keep_all: bool,
    out_dir: Path,
    utt2spk: Mapping[str, str],
) -> Iterator[Record]:
    try:
        clips, notes = cut_clips(recording, provider, keep_all=keep_all)
    except Exception as e:
        error = str(e)
        if not isinstance(e, MediaError | LandmarkError | ClipError):
            # An unforeseen failure of a file or landmark class costs its clip, not the job;
            # nothing has been written yet.
            cause = " ".join(str(e).split())
            file = recording.video or recording.audio
            error = f"{file}: cannot be used ({type(e).__name__}: {cause})"
        for utterance, _, _ in recording.segments:
            yield Record(utterance, wanted[utterance], time.time(), error=error)
        return
    for clip in clips:
        speaker = utt2spk[clip.utterance]
        write_clip(clip, **clip_paths(recording, out_dir, speaker, clip.utterance))
        yield Record(
            clip.utterance,
            wanted[clip.utterance],
            time.time(),
            samples=0 if clip.samples is None else len(clip.samples),
            frames=0 if clip.frames is None else len(clip.frames),
            notes="; ".join(notes),
        )


def write_settings(out_dir: Path, **values: object) -> None:
    """Record how this directory is made; `combine` reads it."""
    with atomic_write(out_dir / "records" / "settings.json") as file:
        json.dump(values, file)


def read_settings(out_dir: Path) -> dict:
    """Read what `write_settings` wrote.

    Raises:
        DataDirError: no job ran.
    """
    path = out_dir / "records" / "settings.json"
    if not path.is_file():
        raise datadir.DataDirError(f"{path}: no such file; run stage 3 first")
    return json.loads(path.read_text(encoding="utf-8"))
