"""Shape files, from which ESPnet makes batches.

The lengths are known from the data preparation, so no media is read.
"""

import math
from pathlib import Path

from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.fileio.durations import read_lengths
from espnet_smop.fileio.table import read_table
from espnet_smop.modality import AUDIO, FRAME_RATE, MODALITIES, VIDEO


def read_counts(data_dir: Path) -> dict[str, dict[str, int]]:
    """Return each modality's lengths per utterance, in samples or frames.

    Raises:
        ValueError: neither modality has lengths, or an utterance of ``text`` has none.
    """
    counts = {
        name: lengths
        for name, modality in MODALITIES.items()
        if (lengths := read_lengths(data_dir, modality)) is not None
    }
    if not counts:
        raise ValueError(
            f"{data_dir} has neither {AUDIO.lengths_file} nor {VIDEO.lengths_file}: run stage 3 "
            "again"
        )
    ids = read_table(data_dir / "text").keys()
    for name, values in counts.items():
        missing = sorted(ids - values.keys())
        if missing:
            raise ValueError(
                f"{data_dir / MODALITIES[name].lengths_file} lacks {missing[0]} and "
                f"{len(missing) - 1} more"
            )
        counts[name] = {key: values[key] for key in sorted(ids)}
    return counts


def durations(data_dir: Path) -> dict[str, int]:
    """Return the duration of each utterance's longer modality in video frames (25 per second)."""
    longest: dict[str, int] = {}
    for name, values in read_counts(data_dir).items():
        rate = MODALITIES[name].rate
        for key, value in values.items():
            longest[key] = max(longest.get(key, 0), math.ceil(value * FRAME_RATE / rate))
    return longest


def make_shapes(data_dir: Path, out_dir: Path) -> None:
    """Write the shape files of one data directory.

    ``speech_shape`` holds samples, ``video_shape`` frames and ``duration_shape`` the `durations`
    that ``batch_type: tokens`` and ``numel`` use: pixels or samples would dwarf all other lengths.
    """
    shapes = {
        f"{MODALITIES[name].data_name}_shape": values
        for name, values in read_counts(data_dir).items()
    }
    for name, values in {**shapes, "duration_shape": durations(data_dir)}.items():
        with atomic_write(out_dir / name) as file:
            file.writelines(f"{key} {value}\n" for key, value in values.items())
