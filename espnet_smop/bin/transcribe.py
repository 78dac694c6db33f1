#!/usr/bin/env python3
"""Transcribe video or audio files with a trained model.

Finds the face, crops the mouth, reads the sound and recognises both; where one of them is missing,
the other alone, and says so. Long files are cut at pauses. Times are of these pieces.

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
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import humanfriendly

from espnet_smop.base_model import BaseModelError
from espnet_smop.bin.avsr_inference import AVSRSpeech2Text
from espnet_smop.checkpoint.package import PackageError
from espnet_smop.corpus.landmarks import LandmarkError, build_landmarks
from espnet_smop.corpus.media import MediaError
from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.transcription import Segment, Transcriber, TranscriptionError

_MODALITIES = {
    "auto": None,
    "audio": ("audio",),
    "video": ("video",),
    "audiovisual": ("audio", "video"),
}


class ProgressLine:
    """Says now and then how far a long file is and how much time is left."""

    def __init__(self, every: float = 5.0):
        self.every = every
        self.what = ""
        self.begun = self.said = 0.0

    def __call__(self, what: str, share: float) -> None:
        """Note that of ``what`` a share is done."""
        now = time.monotonic()
        if what != self.what:
            self.what, self.begun, self.said = what, now, now
        elif now - self.said > self.every and 0 < share < 1:
            self.said = now
            left = (now - self.begun) / share * (1 - share)
            logging.info(
                "%s: %.0f %%, %s left",
                what,
                100 * share,
                humanfriendly.format_timespan(round(left)),
            )


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
def output(out: str | None, path: str, form: str) -> Iterator[IO[str]]:
    """Open what a file's transcript is written to."""
    if out is None:
        yield sys.stdout
        sys.stdout.flush()
    else:
        # With its suffix, so that a.mp4 and a.wav do not meet.
        with atomic_write(Path(out) / f"{Path(path).name}.{form}") as file:
            yield file


def check_names(paths: Sequence[str]) -> None:
    """Refuse files whose transcripts would have the same name.

    Raises:
        ValueError: names two of them.
    """
    seen: dict[str, str] = {}
    for path in paths:
        other = seen.setdefault(Path(path).name, path)
        if other != path:
            raise ValueError(
                f"--out: the transcripts of {other} and {path} would be one file. Transcribe them "
                "into directories of their own, or all to standard output"
            )


def transcribe(transcriber: Transcriber, path: str, form: str, file: IO[str]) -> None:
    """Write the transcript of one file; as text, line by line as it comes."""
    warnings: list[str] = []

    def warn(text: str) -> None:
        warnings.append(text)
        logging.warning("%s: %s", path, text)

    segments = []
    for segment in transcriber(path, warn):
        segments.append(segment)
        if form == "txt":
            print(as_text(segment), file=file, flush=True)
    if form == "json":
        print(as_json(path, segments, warnings), file=file)


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = argparse.ArgumentParser(
        prog="python -m espnet_smop.bin.transcribe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="Packed model (directory, zip, hub id), or an experiment")
    parser.add_argument("files", nargs="+", help="Video or audio files")
    parser.add_argument(
        "--modality",
        choices=tuple(_MODALITIES),
        default="auto",
        help="What to recognise from; auto is all that the model takes",
    )
    parser.add_argument("--format", choices=("txt", "json"), default="txt", help="Default txt")
    parser.add_argument("--out", help="Directory for the transcripts (default: standard output)")
    parser.add_argument(
        "--landmarks",
        default="auto",
        help="Where faces come from: auto (a landmark file beside the video, else dlib), dlib, or "
        "a class of your own as module:Class",
    )
    parser.add_argument("--max_seconds", type=float, default=15.0, help="Longest piece (15)")
    parser.add_argument("--beam_size", type=int, help="1 is greedy search (default: the model's)")
    parser.add_argument("--max_new_tokens", type=int, help="Length cap of a piece, in tokens")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    for base, name in (("whisper", "Whisper"), ("avhubert", "AV-HuBERT"), ("llm", "LLM")):
        parser.add_argument(f"--{base}", help=f"Directory or hub id of the {name}, if moved")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Transcribe the files that the command line names."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    args = get_parser().parse_args(cmd)
    try:
        if args.out is not None:
            check_names(args.files)
        search = {name: getattr(args, name) for name in ("beam_size", "max_new_tokens")}
        speech2text = AVSRSpeech2Text.from_pretrained(
            args.model,
            device=args.device,
            whisper=args.whisper,
            avhubert=args.avhubert,
            llm=args.llm,
            **{name: value for name, value in search.items() if value is not None},
        )
        transcriber = Transcriber(
            speech2text,
            modalities=_MODALITIES[args.modality],
            landmarks=None if args.landmarks == "auto" else build_landmarks(args.landmarks),
            max_seconds=args.max_seconds,
            progress=ProgressLine(),
        )
    except (PackageError, BaseModelError, LandmarkError, RuntimeError, ValueError, OSError) as e:
        sys.exit(f"transcribe: {e}")
    logging.getLogger().setLevel(logging.INFO)  # not before: building the model says much
    failed = 0
    for number, path in enumerate(args.files, start=1):
        if len(args.files) > 1:
            logging.info("%s (%d of %d)", path, number, len(args.files))
            if args.out is None and args.format == "txt":
                print(f"# {path}")
        try:
            with output(args.out, path, args.format) as file:
                transcribe(transcriber, path, args.format, file)
        except (MediaError, TranscriptionError, LandmarkError, ValueError, OSError) as e:
            failed += 1
            logging.error("%s", e)
    if failed:
        sys.exit(f"transcribe: {failed} of {len(args.files)} files could not be transcribed")


if __name__ == "__main__":
    main()
