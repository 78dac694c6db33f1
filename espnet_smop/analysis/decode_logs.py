"""What decoding took: the logs of a decode directory."""

import re
from pathlib import Path
from typing import NamedTuple

_TIME = re.compile(r"RTF: \S+ \((?P<seconds>[\d.]+) s for (?P<speech>[\d.]+) s\)")
_MEMORY = re.compile(r"peak memory: (?P<mib>[\d.]+) MiB of the (?P<where>\w+)")


class DecodeCost(NamedTuple):
    """Measured time and memory of a decoding.

    Attributes:
        rtf: seconds of decoding per second of speech, in one job; None where no job logged it.
        memory: peak memory of a job in MiB, the greatest of all jobs; None where not logged.
        where: ``GPU`` or ``process``, whose memory it is.
    """

    rtf: float | None = None
    memory: float | None = None
    where: str = ""


def read_decode_cost(decode: Path) -> DecodeCost:
    """Read the logs of all jobs of a decode directory."""
    seconds = speech = 0.0
    memory, where = None, ""
    for log in sorted(decode.glob("logdir/avsr_inference.*.log")):
        text = log.read_text(encoding="utf-8", errors="replace")
        for found in _TIME.finditer(text):
            seconds += float(found["seconds"])
            speech += float(found["speech"])
        for found in _MEMORY.finditer(text):
            memory, where = max(memory or 0.0, float(found["mib"])), found["where"]
    return DecodeCost(seconds / speech if speech else None, memory, where)
