#!/usr/bin/env python3
"""Write the shape files from which ESPnet makes batches.

Frame counts are known from the data preparation, so no media is read. Files written:
``speech_shape`` (samples), ``video_shape`` (frames) and ``duration_shape``, the duration in video
frames (25 per second) of the longer modality: what ``batch_type: tokens`` and ``numel`` go by,
since pixels or samples would swamp everything else.

Example::

    python -m espnet_smop.bin.make_shapes --data_dir dump/raw/train --out_dir exp/avsr_stats/train
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet2.fileio.read_text import read_2columns_text

from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.modality import FRAME_RATE, SAMPLE_RATE


def read_counts(data_dir: Path) -> dict[str, dict[str, int]]:
    """Return samples and frames per utterance, by file name, of those files that are there.

    Raises:
        ValueError: neither file is there, or an utterance of ``text`` lacks its count.
    """
    counts = {
        name: {key: int(value) for key, value in read_2columns_text(data_dir / name).items()}
        for name in ("utt2num_samples", "utt2num_frames")
        if (data_dir / name).is_file()
    }
    if not counts:
        raise ValueError(
            f"{data_dir} has neither utt2num_samples nor utt2num_frames: run stage 3 again"
        )
    ids = read_2columns_text(data_dir / "text").keys()
    for name, values in counts.items():
        missing = sorted(ids - values.keys())
        if missing:
            raise ValueError(f"{data_dir / name} lacks {missing[0]} and {len(missing) - 1} more")
        counts[name] = {key: values[key] for key in sorted(ids)}
    return counts


def durations(data_dir: Path) -> dict[str, int]:
    """Return each utterance's duration in video frames, of its longer modality."""
    counts = read_counts(data_dir)
    samples = counts.get("utt2num_samples", {})
    frames = counts.get("utt2num_frames", {})
    return {
        key: max(frames.get(key, 0), math.ceil(samples.get(key, 0) * FRAME_RATE / SAMPLE_RATE))
        for key in samples or frames
    }


def make_shapes(data_dir: Path, out_dir: Path) -> None:
    """Write the shape files of one data directory."""
    counts = read_counts(data_dir)
    shapes = {
        "speech_shape": counts.get("utt2num_samples"),
        "video_shape": counts.get("utt2num_frames"),
        "duration_shape": durations(data_dir),
    }
    for name, values in shapes.items():
        if values is not None:
            with atomic_write(out_dir / name) as file:
                file.writelines(f"{key} {value}\n" for key, value in values.items())


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="Directory below dump/raw")
    parser.add_argument("--out_dir", type=Path, required=True, help="Where the shape files go")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Write shape files."""
    args = get_parser().parse_args(cmd)
    try:
        make_shapes(args.data_dir, args.out_dir)
    except (ValueError, OSError) as e:
        sys.exit(f"make_shapes: {e}")


if __name__ == "__main__":
    main()
