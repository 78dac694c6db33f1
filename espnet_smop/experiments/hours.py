"""How long a training may take on a machine that nobody has timed it on."""

import dataclasses
from pathlib import Path

import yaml


@dataclasses.dataclass(frozen=True)
class Machine:
    """GPUs, and what share of their peak training is expected to reach.

    Attributes:
        gpu: their name.
        count: how many; they are taken to share the work without loss.
        tflops: a GPU's peak of dense bfloat16 matrix products, in 10¹² operations per second, as
            its vendor states it.
        share: of this peak, in training.
        measured: where this share was measured.
    """

    gpu: str
    count: int
    tflops: float
    share: float
    measured: str

    def hours(self, flops: float) -> float:
        """Return the hours that so many floating-point operations take."""
        return flops / (self.share * self.count * self.tflops * 1e12) / 3600

    def __str__(self) -> str:
        """Return what the estimate is made of."""
        return f"{self.count} x {self.gpu} at {100 * self.share:g} % of {self.tflops:g} TFLOP/s"


def read_machine(path: Path, name: str) -> Machine | None:
    """Read a machine of a file like ``conf/gpus.yaml``; None if it is not there.

    Raises:
        ValueError: the file is not of the form.
    """
    if not path.is_file():
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        given = content["machines"].get(name)
        return given and Machine(
            gpu=str(given["gpu"]),
            count=int(given["count"]),
            tflops=_positive(given["tflops"]),
            share=_positive(content["share_of_peak"]),
            measured=str(content["share_measured"]),
        )
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as e:
        raise ValueError(
            f"{path}: expected share_of_peak, share_measured and machines, each of these with gpu, "
            f"count and tflops ({e})"
        ) from None


def _positive(value: float) -> float:
    if not float(value) > 0:
        raise ValueError(f"{value} is not above 0")
    return float(value)
