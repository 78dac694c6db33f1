"""Mix babble noise, a 16 kHz mono WAV file, from a training set's utterances.

Example::

    python -m espnet_smop.bin.make_babble --data_dir dump/raw/train --out dump/noise/babble.wav
"""

import argparse
import sys
from pathlib import Path

import soundfile

from espnet_smop.command import CommandHelp
from espnet_smop.corpus.babble import mix_babble
from espnet_smop.corpus.datadir import DataDirError, read_table
from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.modality import SAMPLE_RATE


def get_parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m espnet_smop.bin.make_babble",
        description=__doc__,
        formatter_class=CommandHelp,
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="formatted training set")
    parser.add_argument("--out", type=Path, required=True, help="the WAV file to write")
    parser.add_argument(
        "--num_utts", type=int, default=30, help="how many utterances speak at a time"
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="length of the noise")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same noise")
    return parser


def main(cmd: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = get_parser().parse_args(cmd)
    try:
        noise = mix_babble(
            read_table(args.data_dir / "wav.scp"),
            read_table(args.data_dir / "utt2spk"),
            num_utts=args.num_utts,
            seconds=args.seconds,
            seed=args.seed,
        )
    except DataDirError as e:
        sys.exit(f"make_babble: {e}")
    with atomic_write(args.out, "wb") as file:
        soundfile.write(file, noise, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    print(f"{args.out}: {args.seconds:g} s of {args.num_utts} utterances at a time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
