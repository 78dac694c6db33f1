"""Time and memory of decoding: each job writes ``costs.json``, and merging adds the jobs up."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.fileio.atomic import atomic_write

COSTS = "costs.json"


@dataclasses.dataclass(frozen=True)
class DecodingCosts:
    """Measured time and memory of a decoding.

    Attributes:
        utterances: number of utterances decoded.
        speech_seconds: their duration in seconds.
        decoding_seconds: wall-clock time in seconds, loading the model excluded, added up over
            jobs. Noise levels that are decoded together share the reading of the data and the
            encoding of what noise does not change: it counts for each in full, as if that level
            were decoded alone, so that levels add up to more than the time that passed.
        peak_memory_mib: peak memory in MiB of the process, whatever else it decodes; of several
            jobs, the largest.
        memory_of: ``GPU`` or ``process``: what ``peak_memory_mib`` was measured on.
        task: of the decoded view; empty in files of earlier versions, like all below.
        rates: modality → encoder frames per token; empty if there is one rate.
        media_tokens: audio and video tokens that the LLM read.
    """

    utterances: int
    speech_seconds: float
    decoding_seconds: float
    peak_memory_mib: float
    memory_of: str
    task: str = ""
    rates: dict[str, int] = dataclasses.field(default_factory=dict)
    media_tokens: int = 0

    @property
    def rtf(self) -> float:
        """Real-time factor of one job: seconds of decoding per second of speech."""
        return self.decoding_seconds / self.speech_seconds

    @property
    def tokens_per_second(self) -> float:
        """Audio and video tokens per second of speech."""
        return self.media_tokens / self.speech_seconds

    def write(self, directory: Path) -> None:
        """Write ``costs.json``."""
        with atomic_write(directory / COSTS) as file:
            json.dump(dataclasses.asdict(self), file, indent=1)
            file.write("\n")

    @classmethod
    def read(cls, directory: Path) -> "DecodingCosts | None":
        """Read ``costs.json``; None if it does not exist.

        Raises:
            ValueError: the file does not hold the attributes.
        """
        path = directory / COSTS
        if not path.is_file():
            return None
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as e:
            raise ValueError(f"{path} was not written by avsr_inference: {e}") from None

    @classmethod
    def total(cls, jobs: Sequence["DecodingCosts"]) -> "DecodingCosts":
        """Add up the jobs of one decoding."""
        return cls(
            utterances=sum(job.utterances for job in jobs),
            speech_seconds=sum(job.speech_seconds for job in jobs),
            decoding_seconds=sum(job.decoding_seconds for job in jobs),
            peak_memory_mib=max(job.peak_memory_mib for job in jobs),
            memory_of=jobs[0].memory_of,
            task=jobs[0].task,
            rates=jobs[0].rates,
            media_tokens=sum(job.media_tokens for job in jobs),
        )
