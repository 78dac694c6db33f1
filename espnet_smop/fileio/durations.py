"""Lengths and durations of utterances, and the order in which to process them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from espnet_smop.fileio.table import read_table
from espnet_smop.modality import MODALITIES, Modality


def read_lengths(data_dir: Path, modality: Modality) -> dict[str, int] | None:
    """Return each utterance's length in samples or frames; None if no file records them."""
    file = data_dir / modality.lengths_file
    if not file.is_file():
        return None
    return {key: int(value) for key, value in read_table(file).items()}


def read_durations(sources: Iterable[tuple[str, str, str]]) -> dict[str, float]:
    """Return each utterance's duration in seconds; empty if no file records them.

    Args:
        sources: (scp file, name, type) of the inputs; ``utt2num_samples`` or ``utt2num_frames``
            is looked for beside the scp files.
    """
    by_data_name = {modality.data_name: modality for modality in MODALITIES.values()}
    for path, name, _ in sources:
        modality = by_data_name.get(name)
        if modality and (lengths := read_lengths(Path(path).parent, modality)) is not None:
            return {key: length / modality.rate for key, length in lengths.items()}
    return {}


def longest_first(keys: Iterable[str], durations: Mapping[str, float]) -> list[str]:
    """Sort utterance ids by decreasing duration; those of unknown duration come first.

    Batches then have similar lengths, and one that does not fit in memory fails at once.
    """
    return sorted(keys, key=lambda key: (-durations.get(key, float("inf")), key))
