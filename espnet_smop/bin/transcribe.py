#!/usr/bin/env python3
r"""Transcribe video or audio files with a trained model.

Finds the face, crops the mouth, reads the audio and recognises both; if one is missing, it warns
and uses the other. Long files are cut at pauses, and each piece is written with its times.

The transcript of a single file is printed. Those of several files, or of a folder and all below
it, are written beside them or to --output_dir. Files that have a transcript are skipped, so that
the same command resumes an interrupted run. The exit status is 1 if any file failed.

Example::

    python -m espnet_smop.bin.transcribe exp/avsr_train_avsr_smop3_dedr \
        downloads/mini_lrs3/test/s53 --output_dir exp/transcripts --format srt
"""

import argparse
import contextlib
import dataclasses
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers.utils.logging import disable_progress_bar

from espnet_smop.command import (
    CommandParser,
    add_model_options,
    add_output_dir,
    model_options,
    run,
    str2bool,
)
from espnet_smop.corpus.landmarks import (
    LandmarkError,
    build_landmarks,
    check_landmarks_available,
    find_beside,
)
from espnet_smop.corpus.media import MediaError
from espnet_smop.corpus.readers.folder import AUDIO_SUFFIXES, VIDEO_SUFFIXES, media_below
from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.inference import (
    AVSRSpeech2Text,
    Progress,
    Transcriber,
    TranscriptionError,
)
from espnet_smop.transcript_formats import FORMATS, SUBTITLES

_MODALITIES = {
    "auto": None,
    "audio": ("audio",),
    "video": ("video",),
    "audiovisual": ("audio", "video"),
}
_SUFFIXES = (*VIDEO_SUFFIXES, *AUDIO_SUFFIXES)
STANDARD_OUTPUT = Path("-")
"""As ``--output_dir``: print all transcripts."""


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show progress and time left for a file, if standard error is a terminal."""
    form = "{desc}: {percentage:.0f} % |{bar}| {remaining} left"
    with tqdm(total=1.0, bar_format=form, leave=False, disable=None) as bar:

        def show(what: str, share: float) -> None:
            bar.set_description_str(what, refresh=False)
            if share < bar.n:  # the next step
                bar.reset()
            bar.update(share - bar.n)

        yield show


@dataclasses.dataclass(frozen=True)
class Job:
    """A file to transcribe.

    Attributes:
        media: the file.
        transcript: where its transcript goes; None is standard output.
    """

    media: Path
    transcript: Path | None


def find_jobs(words: Sequence[str], out: Path | None, form: str) -> list[Job]:
    """Return the files on the command line, and those in its folders.

    Args:
        words: files and folders.
        out: directory for the transcripts; ``-`` is standard output, None is each file's own
            directory or, for a single file, standard output.
        form: one of `FORMATS`.

    Raises:
        ValueError: two files would share a transcript, or standard output as subtitles.
        MediaError: no file was found.
    """
    media: dict[Path, Path] = {}  # → its path within the output directory
    for path in map(Path, words):
        found = media_below(path, _SUFFIXES)
        media |= {file: file.relative_to(path) for file in found} or {path: Path(path.name)}
    if out == STANDARD_OUTPUT or (out is None and list(media) == [Path(words[0])]):
        if form in SUBTITLES and len(media) > 1:
            raise ValueError(
                f"--format {form}: each file needs a transcript of its own; leave --output_dir out"
            )
        jobs = [Job(file, None) for file in media]
    else:
        jobs = [
            Job(file, _transcript(file if out is None else out / within, form))
            for file, within in media.items()
        ]
        _check_apart(jobs)
    if not any(job.media.is_file() for job in jobs):
        raise _no_media(jobs[0].media)
    return jobs


def _no_media(path: Path) -> MediaError:
    if path.is_dir():
        return MediaError(path, f"has no {', '.join(_SUFFIXES)} file", "give another folder")
    return MediaError(path, "no such file", "give video or audio files")


def _transcript(path: Path, form: str) -> Path:
    # Players look for a.srt beside a.mp4. Otherwise a.txt may be a corpus's own text, and the
    # media file's suffix is kept.
    return path.with_suffix(f".{form}") if form in SUBTITLES else Path(f"{path}.{form}")


def _check_apart(jobs: Sequence[Job]) -> None:
    seen: dict[Path, Path] = {}
    for job in jobs:
        other = seen.setdefault(job.transcript, job.media)
        if other != job.media:
            raise ValueError(
                f"{other} and {job.media} would share the transcript {job.transcript}: transcribe "
                "them one after the other, each with its own --output_dir"
            )


@contextlib.contextmanager
def output(transcript: Path | None) -> Iterator[IO[str]]:
    """Open the file for a transcript, which appears when it is complete; None: standard output."""
    if transcript is None:
        yield sys.stdout
    else:
        with atomic_write(transcript) as file:
            yield file


def transcribe(transcriber: Transcriber, path: Path, form: str, file: IO[str]) -> None:
    """Write the transcript of one file, each part as soon as it is recognised."""
    warnings: list[str] = []

    def warn(text: str) -> None:
        warnings.append(text)
        logging.warning("%s: %s", path, text)

    for part in FORMATS[form](str(path), transcriber(path, warn), warnings):
        tqdm.write(part, file=file)
        file.flush()


def transcribe_all(transcriber: Transcriber, jobs: Sequence[Job], form: str) -> list[str]:
    """Transcribe all files, even if some fail; return the errors."""
    errors = []
    several = len(jobs) > 1
    # None: only if standard error is a terminal
    hidden = None if several else True
    bar = tqdm(jobs, "files", unit="file", leave=False, disable=hidden)
    with logging_redirect_tqdm(), bar:
        for number, job in enumerate(bar, start=1):
            if several:
                logging.info("%s (%d of %d)", job.media, number, len(jobs))
                if job.transcript is None and form == "txt":
                    tqdm.write(f"# {job.media}")
            try:
                if not job.media.is_file():
                    raise _no_media(job.media)
                with progress_bar() as progress, output(job.transcript) as file:
                    transcriber.progress = progress
                    transcribe(transcriber, job.media, form, file)
            except (MediaError, TranscriptionError, LandmarkError, ValueError, OSError) as e:
                errors.append(str(e))
                logging.error("%s", e)
    return errors


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = CommandParser(
        prog="python -m espnet_smop.bin.transcribe",
        description=__doc__,
    )
    add_model_options(parser)
    parser.add_argument("files", nargs="+", help="Video or audio files, or folders of them")
    parser.add_argument(
        "--modality",
        choices=tuple(_MODALITIES),
        default="auto",
        help="Inputs to use; auto uses all that the model takes",
    )
    parser.add_argument("--format", choices=tuple(FORMATS), default="txt", help="Output format")
    add_output_dir(
        parser,
        "Directory for the transcripts; - is standard output (default: standard output for one "
        "file, else beside each file)",
        required=False,
    )
    parser.add_argument(
        "--overwrite",
        type=str2bool,
        default=False,
        help="Replace existing transcripts",
    )
    parser.add_argument("--max_seconds", type=float, default=15.0, help="Maximum length of a piece")
    return parser


def load_transcriber(args: argparse.Namespace, jobs: Sequence[Job]) -> Transcriber:
    """Load the model that the command line names, for these files."""
    explicit = _MODALITIES[args.modality] or ()
    if "video" in explicit and not all(find_beside(job.media) for job in jobs):
        check_landmarks_available(args.landmarks)
    disable_progress_bar()  # of loading weights
    speech2text = AVSRSpeech2Text.from_pretrained(args.model, **model_options(args))
    return Transcriber(
        speech2text,
        modalities=_MODALITIES[args.modality],
        landmarks=None if args.landmarks == "auto" else build_landmarks(args.landmarks),
        max_seconds=args.max_seconds,
    )


def main(cmd: Sequence[str] | None = None) -> None:
    """Transcribe the files that the command line names."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    args = get_parser().parse_args(cmd)
    jobs = find_jobs(args.files, args.out, args.format)  # fails before the model is loaded
    if args.max_seconds <= 0:
        raise ValueError(f"--max_seconds {args.max_seconds}: expected a number above 0")
    left = [j for j in jobs if args.overwrite or not (j.transcript and j.transcript.exists())]
    transcriber = load_transcriber(args, left) if left else None
    logging.getLogger().setLevel(logging.INFO)  # not before: building the model logs a lot
    errors = transcribe_all(transcriber, left, args.format) if transcriber else []
    kept = len(jobs) - len(left)
    if len(jobs) > 1 or kept:
        logging.info("%d transcribed, %d failed", len(left) - len(errors), len(errors))
    if kept:
        logging.info("%d have a transcript already: --overwrite true replaces them", kept)
    if errors:
        again = "".join(f"\n  {error}" for error in errors) if len(jobs) > 1 else ""
        raise TranscriptionError(
            f"{len(errors)} of {len(jobs)} files could not be transcribed{again and ':'}{again}"
        )


if __name__ == "__main__":
    run(main)
