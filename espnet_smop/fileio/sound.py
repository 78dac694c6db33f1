"""The data type ``sound``, as in ESPnet, but for one sampling rate.

ESPnet's reader drops the rate of a file, so that one at 44.1 kHz would be taken for slow speech at
16 kHz. ``register`` makes ESPnet's datasets refuse it; call it before a dataset is built
(``AVSRTask`` does).
"""

from pathlib import Path

import numpy as np
import soundfile
from espnet2.fileio.sound_scp import SoundScpReader

from espnet_smop.modality import SAMPLE_RATE


class SoundFileError(RuntimeError):
    """A sound file cannot be read or is at another rate; the message names it in one line."""


def check_rate(path: str | Path, rate: int) -> None:
    """Raise `SoundFileError` if a file's sampling rate is not the model's."""
    if rate != SAMPLE_RATE:
        raise SoundFileError(
            f"{path} is at {rate} Hz, expected {SAMPLE_RATE}: resample it (stage 3 does)"
        )


def read_sound(path: str | Path) -> np.ndarray:
    """Read a sound file at 16 kHz, float64 ``(samples,)`` or ``(samples, channels)``.

    Raises:
        SoundFileError: it is at another rate.
    """
    samples, rate = soundfile.read(path)
    check_rate(path, rate)
    return samples


class _SoundScpReader(SoundScpReader):
    def __getitem__(self, key: str) -> tuple[int | None, np.ndarray | None]:
        rate, samples = super().__getitem__(key)
        if rate is not None:
            check_rate(self.data[key], rate)
        return rate, samples


def _load(path: str, float_dtype: str | None = None, allow_multi_rates: bool = False):
    from espnet2.train.dataset import AdapterForSoundScpReader

    reader = _SoundScpReader(path, always_2d=False, dtype=float_dtype)
    return AdapterForSoundScpReader(reader, allow_multi_rates=allow_multi_rates)


def register() -> None:
    """Make ESPnet's datasets check the sampling rate; repeated calls have no effect."""
    from espnet2.train import dataset, iterable_dataset

    dataset.DATA_TYPES["sound"]["func"] = _load
    iterable_dataset.DATA_TYPES["sound"] = read_sound
