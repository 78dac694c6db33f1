"""Synthetic voices: eSpeak NG's, and those of Debian's flite and festvox packages.

eSpeak NG's are computed by rule. The others were made from recordings of people: by flite's
clustergen (awb, rms, slt), diphones (kal) and hidden Markov models (slt of festvox-us-slt-hts).
"""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile

from espnet_smop.modality import SAMPLE_RATE
from talking_face.difficulty import Difficulty
from talking_face.speakers import speaker
from talking_face.speech import Segment, speak, speak_phones


class Voice(Protocol):
    """A voice.

    Attributes:
        name: without hyphens.
    """

    name: str

    def say(self, text: str) -> np.ndarray:
        """Return float32 samples at 16 kHz."""


@dataclass(frozen=True)
class Espeak:
    """The voice of a speaker of `talking_face.speakers`."""

    index: int

    @property
    def name(self) -> str:
        """The speaker's name."""
        return speaker(self.index, 0, Difficulty()).name

    def say(self, text: str) -> np.ndarray:
        """See `Voice`."""
        return speak(text, speaker(self.index, 0, Difficulty()).voice)

    def say_phones(self, text: str) -> tuple[np.ndarray, list[Segment]]:
        """Return the speech and its phones, in IPA."""
        return speak_phones(text, speaker(self.index, 0, Difficulty()).voice)


@dataclass(frozen=True)
class Program:
    """A program that reads a text file and writes a sound file at 16 kHz.

    Attributes:
        name: of the voice.
        command: with ``{text}`` and ``{wav}`` for the files.
        package: Debian package that has it.
    """

    name: str
    command: tuple[str, ...]
    package: str

    def is_installed(self) -> bool:
        """Return whether the program can be found."""
        return shutil.which(self.command[0]) is not None

    def say(self, text: str) -> np.ndarray:
        """See `Voice`."""
        with tempfile.TemporaryDirectory() as directory:
            files = {"text": f"{directory}/text", "wav": f"{directory}/wav"}
            Path(files["text"]).write_text(text + "\n")
            subprocess.run(
                [word.format(**files) for word in self.command],
                check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            samples, rate = soundfile.read(files["wav"], dtype="float32")
        if rate != SAMPLE_RATE:
            raise ValueError(f"{self.name} speaks at {rate} Hz, not {SAMPLE_RATE}")
        return samples


def _flite(name: str) -> Program:
    return Program(f"flite_{name}", ("flite", "-voice", name, "{text}", "{wav}"), "flite")


ESPEAK = tuple(Espeak(index) for index in range(48))
ESPEAK_TEST = tuple(Espeak(index) for index in range(48, 60))
FLITE = tuple(_flite(name) for name in ("awb", "kal16", "rms", "slt"))
HTS = (
    Program(
        "hts_slt",
        ("text2wave", "-eval", "(voice_cmu_us_slt_arctic_hts)", "-F", "16000",
         "{text}", "-o", "{wav}"),
        "festvox-us-slt-hts",
    ),
)  # fmt: skip
KINDS: dict[str, tuple[Voice, ...]] = {
    "espeak": ESPEAK,
    # Few voices, but more natural: each speaks five times as often as one of eSpeak NG's.
    "flite": 5 * FLITE,
    "hts": 5 * HTS,
}
"""Voices of the training set by kind, in the proportions of their use."""
