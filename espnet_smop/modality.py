"""The modalities' names, files, data types and rates, defined only here."""

from dataclasses import dataclass
from pathlib import Path

SAMPLE_RATE = 16000
"""Samples per second of all audio."""
FRAME_RATE = 25
"""Frames per second of all video: AV-HuBERT's rate and LRS3's own."""


@dataclass(frozen=True)
class Modality:
    """One kind of input.

    Attributes:
        name: ``audio`` or ``video``: keys of features and tokens, prefix of ``*_frontend``.
        data_name: name of the input in ESPnet's batches (``speech``, ``video``).
        scp: file of a data directory that lists the inputs.
        data_type: ESPnet's type of that file.
        lengths_file: file of a data directory with the length of each utterance.
        rate: units of ``lengths_file`` per second.
    """

    name: str
    data_name: str
    scp: str
    data_type: str
    lengths_file: str
    rate: int

    @property
    def feats_name(self) -> str:
        """Name of precomputed features of the input in ESPnet's batches."""
        return f"{self.data_name}_feats"

    def source(self, data_dir: str | Path) -> tuple[str, str, str]:
        """Return path, name and type of the inputs in a data directory, for ESPnet's datasets."""
        return str(Path(data_dir) / self.scp), self.data_name, self.data_type


AUDIO = Modality("audio", "speech", "wav.scp", "sound", "utt2num_samples", SAMPLE_RATE)
VIDEO = Modality("video", "video", "video.scp", "video", "utt2num_frames", FRAME_RATE)

MODALITIES = {modality.name: modality for modality in (AUDIO, VIDEO)}
"""All modalities by name, in the order in which the LLM reads them."""
