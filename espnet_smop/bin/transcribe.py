#!/usr/bin/env python3
r"""Transcribe video or audio files with a trained model.

Finds the face, crops the mouth, reads the audio and recognises both; if one is missing, it warns
and uses the other. Long files are cut at pauses, and each piece is written with its times.

Example::

    python -m espnet_smop.bin.transcribe exp/avsr_train_avsr_smop3_dedr \
        downloads/mini_lrs3/test/s53/00001.mp4 downloads/mini_lrs3/test/s53/00002.mp4 \
        --format json
"""

import argparse
import contextlib
import dataclasses
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers.utils.logging import disable_progress_bar

from espnet_smop.command import CommandParser, add_output_dir, device, rates, run
from espnet_smop.corpus.landmarks import (
    LandmarkError,
    build_landmarks,
    check_landmarks_available,
    find_beside,
)
from espnet_smop.corpus.media import MediaError
from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.inference import (
    AVSRSpeech2Text,
    Progress,
    Segment,
    Transcriber,
    TranscriptionError,
)
from espnet_smop.views import TASKS

_MODALITIES = {
    "auto": None,
    "audio": ("audio",),
    "video": ("video",),
    "audiovisual": ("audio", "video"),
}


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show how far a file is and how much time is left, if standard error is a terminal."""
    form = "{desc}: {percentage:.0f} % |{bar}| {remaining} left"
    bar = tqdm(total=1.0, bar_format=form, leave=False, disable=None)
    with bar, logging_redirect_tqdm():

        def show(what: str, share: float) -> None:
            bar.set_description_str(what, refresh=False)
            if share < bar.n:  # the next step
                bar.reset()
            bar.update(share - bar.n)

        yield show


def clock(seconds: float) -> str:
    """Return a time as ``h:mm:ss.cc``."""
    hundredths = round(seconds * 100)
    minutes, hundredths = divmod(hundredths, 6000)
    return f"{minutes // 60}:{minutes % 60:02d}:{hundredths // 100:02d}.{hundredths % 100:02d}"


def as_text(segment: Segment) -> str:
    """Return a segment as a line with its times."""
    return f"[{clock(segment.start)} - {clock(segment.end)}] {segment.text}"


def as_json(path: str, segments: list[Segment], warnings: list[str]) -> str:
    """Return a file's transcript as one line of JSON."""
    content: dict[str, Any] = {
        "file": path,
        "text": " ".join(s.text for s in segments if s.text),
        "warnings": warnings,
        "segments": [dataclasses.asdict(s) for s in segments],
    }
    return json.dumps(content, ensure_ascii=False)


@contextlib.contextmanager
def output(out: Path | None, path: str, form: str) -> Iterator[IO[str]]:
    """Open the file for a transcript: standard output, or a file in the directory ``out``."""
    if out is None:
        yield sys.stdout
    else:
        # The media file's suffix is kept, so that a.mp4 and a.wav differ.
        with atomic_write(out / f"{Path(path).name}.{form}") as file:
            yield file


def check_names(paths: Sequence[str]) -> None:
    """Check that no two files' transcripts would have the same name.

    Raises:
        ValueError: names two such files.
    """
    seen: dict[str, str] = {}
    for path in paths:
        other = seen.setdefault(Path(path).name, path)
        if other != path:
            raise ValueError(
                f"--out: {other} and {path} would share one transcript. Transcribe them into "
                "different directories, or all to standard output"
            )


def transcribe(transcriber: Transcriber, path: str, form: str, file: IO[str]) -> None:
    """Write the transcript of one file; as text, each line as soon as it is recognised."""
    warnings: list[str] = []

    def warn(text: str) -> None:
        warnings.append(text)
        logging.warning("%s: %s", path, text)

    segments = []
    for segment in transcriber(path, warn):
        segments.append(segment)
        if form == "txt":
            tqdm.write(as_text(segment), file=file)
            file.flush()
    if form == "json":
        tqdm.write(as_json(path, segments, warnings), file=file)
        file.flush()


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = CommandParser(
        prog="python -m espnet_smop.bin.transcribe",
        description=__doc__,
    )
    parser.add_argument("model", help="Package (directory, zip file, hub id) or experiment")
    parser.add_argument("files", nargs="+", help="Video or audio files")
    parser.add_argument(
        "--modality",
        choices=tuple(_MODALITIES),
        default="auto",
        help="Inputs to use; auto uses all that the model takes",
    )
    parser.add_argument(
        "--task",
        choices=tuple(TASKS),
        help="Of a model of several tasks, the one to use (default: the one with the most inputs)",
    )
    parser.add_argument(
        "--rates",
        type=rates,
        help="Of a model of several rates, encoder frames per token, e.g. audio=16,video=5 "
        "(default: the first of each)",
    )
    parser.add_argument("--format", choices=("txt", "json"), default="txt", help="Output format")
    add_output_dir(
        parser, "Directory for the transcripts (default: standard output)", required=False
    )
    parser.add_argument(
        "--landmarks",
        default="auto",
        help="Source of facial landmarks: auto (a landmark file beside the video, else dlib), "
        "dlib, or your own class as module:Class",
    )
    parser.add_argument(
        "--max_seconds", type=float, default=15.0, help="Length limit of the pieces"
    )
    parser.add_argument("--beam_size", type=int, help="1 is greedy search (default: the model's)")
    parser.add_argument(
        "--max_new_tokens", type=int, help="Token limit of a piece (default: the model's)"
    )
    parser.add_argument(
        "--contrast",
        type=float,
        help="Contrast audio and video with the audio alone, by this weight (default: the model's)",
    )
    parser.add_argument(
        "--device", type=device, default="auto", help="auto (a GPU if there is one), cpu or cuda"
    )
    for base, name in (("whisper", "Whisper"), ("avhubert", "AV-HuBERT"), ("llm", "LLM")):
        parser.add_argument(
            f"--{base}", help=f"Directory or hub id of the {name} (default: the model's)"
        )
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Transcribe the files that the command line names."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    args = get_parser().parse_args(cmd)
    if args.out is not None:
        check_names(args.files)
    if not any(Path(file).is_file() for file in args.files):  # before the model is loaded
        first = args.files[0]
        if Path(first).is_dir():
            raise MediaError(first, "is a directory", "give its video or audio files")
        raise MediaError(first, "no such file", "give video or audio files")
    if args.max_seconds <= 0:
        raise ValueError(f"--max_seconds {args.max_seconds}: expected a number above 0")
    explicit = _MODALITIES[args.modality] or ()
    if "video" in explicit and not all(find_beside(Path(file)) for file in args.files):
        check_landmarks_available(args.landmarks)
    search = {name: getattr(args, name) for name in ("beam_size", "max_new_tokens", "contrast")}
    disable_progress_bar()  # of loading weights
    speech2text = AVSRSpeech2Text.from_pretrained(
        args.model,
        device=args.device,
        whisper=args.whisper,
        avhubert=args.avhubert,
        llm=args.llm,
        task=args.task,
        rates=args.rates,
        **{name: value for name, value in search.items() if value is not None},
    )
    transcriber = Transcriber(
        speech2text,
        modalities=_MODALITIES[args.modality],
        landmarks=None if args.landmarks == "auto" else build_landmarks(args.landmarks),
        max_seconds=args.max_seconds,
    )
    logging.getLogger().setLevel(logging.INFO)  # not before: building the model logs a lot
    failed = 0
    for number, path in enumerate(args.files, start=1):
        if len(args.files) > 1:
            logging.info("%s (%d of %d)", path, number, len(args.files))
            if args.out is None and args.format == "txt":
                print(f"# {path}")
        try:
            with progress_bar() as progress, output(args.out, path, args.format) as file:
                transcriber.progress = progress
                transcribe(transcriber, path, args.format, file)
        except (MediaError, TranscriptionError, LandmarkError, ValueError, OSError) as e:
            failed += 1
            logging.error("%s", e)
    if failed:
        raise TranscriptionError(f"{failed} of {len(args.files)} files could not be transcribed")


if __name__ == "__main__":
    run(main)
