#!/usr/bin/env python3
r"""Demonstrate a trained model: a web page that transcribes visitors' clips.

It takes an uploaded or recorded clip and shows the mouth that was found, the transcripts from
sound and lips and from each of them alone, with times, and which expert took which token. A slider
adds babble. The page fetches nothing from other hosts, and by default only this machine can open
it. Clips are removed an hour after upload, and when the command ends.

Needs Gradio: in the clone, pip install ".[demo,landmarks]".

Example::

    python -m espnet_smop.bin.demo exp/avsr_train_avsr_smop3_dedr \
        --example downloads/mini_lrs3/test --babble dump/noise/babble.wav
"""

import argparse
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from transformers.utils.logging import disable_progress_bar

from espnet_smop.command import CommandParser, add_model_options, model_options, run
from espnet_smop.corpus.landmarks import (
    LandmarkError,
    build_landmarks,
    check_landmarks_available,
)
from espnet_smop.inference import AVSRSpeech2Text, Transcriber


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = CommandParser(prog="python -m espnet_smop.bin.demo", description=__doc__)
    add_model_options(parser)
    parser.add_argument(
        "--example", type=Path, help="Folder of clips to offer, with landmark files beside them"
    )
    parser.add_argument(
        "--babble",
        type=Path,
        help="Noise file at 16 kHz, as made by stage 7 of a recipe (default: no slider)",
    )
    parser.add_argument("--max_seconds", type=float, default=30.0, help="Length limit of clips")
    parser.add_argument("--max_megabytes", type=float, default=50.0, help="Size limit of clips")
    parser.add_argument(
        "--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 is open to the network"
    )
    parser.add_argument("--port", type=int, help="Port (default: the first free one from 7860)")
    return parser


def check_limits(args: argparse.Namespace) -> None:
    """Raise ValueError for bad limits or missing files."""
    for name in ("max_seconds", "max_megabytes"):
        if not getattr(args, name) > 0:
            raise ValueError(f"--{name} {getattr(args, name)}: expected a number above 0")
    if args.babble is not None and not args.babble.is_file():
        raise ValueError(f"--babble {args.babble}: there is no such file (stage 7 makes one)")
    if args.example is not None and not args.example.is_dir():
        raise ValueError(f"--example {args.example}: there is no such folder")


def main(cmd: Sequence[str] | None = None) -> None:
    """Serve the page until the command is interrupted."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    args = get_parser().parse_args(cmd)
    check_limits(args)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the clips are removed
    with tempfile.TemporaryDirectory(prefix="demo_") as clips:
        os.environ["GRADIO_TEMP_DIR"] = clips  # which Gradio reads when it is imported
        try:
            from espnet_smop.demo import page
        except ModuleNotFoundError as e:
            raise RuntimeError(
                f"the page needs {e.name}, which is not installed: in the clone, "
                "pip install '.[demo]'"
            ) from None
        from espnet_smop.demo.examples import find_examples, landmarks_by_content
        from espnet_smop.demo.recognition import ClipRecogniser

        disable_progress_bar()  # of loading weights
        speech2text = AVSRSpeech2Text.from_pretrained(args.model, **model_options(args))
        own = None if args.landmarks == "auto" else build_landmarks(args.landmarks)
        transcriber = Transcriber(speech2text, landmarks=own)
        video = "video" in transcriber.modalities
        if video:
            try:
                check_landmarks_available(args.landmarks)
            except LandmarkError as e:
                logging.warning("only the sound of visitors' clips can be recognised: %s", e)
        examples = find_examples(args.example, video=video) if args.example else []
        recogniser = ClipRecogniser(
            transcriber,
            babble=args.babble,
            max_seconds=args.max_seconds,
            landmarks=landmarks_by_content(examples),
        )
        shown = page.build_page(
            recogniser,
            name=Path(args.model).stem,
            examples=examples,
            max_megabytes=args.max_megabytes,
        )
        page.serve(shown, host=args.host, port=args.port, max_megabytes=args.max_megabytes)


if __name__ == "__main__":
    run(main)
