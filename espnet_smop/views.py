"""Views: the tasks and rates of a training step, and their weights in the loss.

A **view** is a task (its modalities) at given rates (encoder frames per token). A step encodes a
batch once, and then projects, decodes and adds a weighted loss for each of its views. Llama-SMoP
has one view; Omni-AVSR (arXiv 2511.07253) has three tasks and draws one pair of audio and video
rates per step; Llama-MTSK (arXiv 2503.06362) uses all pairs in every step.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from espnet_smop.modality import MODALITIES

TASKS = {"asr": ("audio",), "vsr": ("video",), "avsr": ("audio", "video")}
"""Task → its modalities."""

RATE_PAIRS = ("sample", "all")


def task_for(modalities: Collection[str]) -> str:
    """Return the task that takes these modalities."""
    return next(task for task, used in TASKS.items() if set(used) == set(modalities))


def rates_tag(rates: Mapping[str, int]) -> str:
    """Return modality → rate as part of a name, such as ``a4_v2``."""
    return "_".join(f"{modality[0]}{rate}" for modality, rate in rates.items())


def rate_pairs_of(rates: Mapping[str, Sequence[int]]) -> list[dict[str, int]]:
    """Return all pairs of one audio and one video rate; the audio rate varies fastest."""
    rates = {m: rates[m] for m in MODALITIES if m in rates}
    pairs = itertools.product(*reversed(rates.values()))
    return [dict(zip(rates, reversed(pair), strict=True)) for pair in pairs]


@dataclass(frozen=True)
class View:
    """A task at given rates.

    Attributes:
        task: one of `TASKS`.
        rates: modality → encoder frames per token; empty if the projector has a single rate.
        weight: factor of its loss.
    """

    task: str
    rates: Mapping[str, int] = field(default_factory=dict, hash=False)
    weight: float = field(default=1.0, compare=False)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that the LLM reads, in order."""
        return TASKS[self.task]

    @property
    def rates_tag(self) -> str:
        """See `rates_tag`; empty without rates."""
        return rates_tag(self.rates)

    @property
    def tag(self) -> str:
        """The view as part of a name, such as ``avsr_a4_v2``."""
        return "_".join(part for part in (self.task, self.rates_tag) if part)


def choose_task(tasks: Collection[str], task: str | None = None) -> str:
    """Return the task to decode with; None is the one with the most modalities.

    Raises:
        ValueError: it is not one of the model's tasks.
    """
    if task is None:
        return max(tasks, key=lambda t: len(TASKS[t]))
    if task not in tasks:
        raise ValueError(f"task is '{task}', but the model has {', '.join(tasks)}")
    return task


def parse_rates(text: str) -> dict[str, int]:
    """Parse ``audio=4,video=2``, or one of them.

    Raises:
        ValueError: the text has another format.
    """
    rates = {}
    for part in filter(None, text.split(",")):
        modality, _, rate = part.strip().partition("=")
        if modality not in MODALITIES or not rate.isdecimal():
            raise ValueError(f"rates '{text}': expected audio=4,video=2, or one of them")
        rates[modality] = int(rate)
    return rates


def tasks_of(tasks: Mapping[str, float] | None, modalities: Collection[str]) -> dict[str, float]:
    """Return the tasks of a model with these modalities, by default the one that uses them all.

    Raises:
        ValueError: ``tasks`` has an unknown task, one that lacks a frontend, or a wrong weight.
    """
    if tasks is None:
        return {task_for(modalities): 1.0}
    problem = next(task_problems(tasks, modalities), None)
    if problem is not None:
        raise ValueError(problem)
    return dict(tasks)


def task_problems(tasks: Mapping[str, float], modalities: Collection[str]) -> Iterator[str]:
    """Yield problems with ``model_conf.tasks``, for a model with these modalities."""
    if not isinstance(tasks, Mapping) or not tasks:
        yield f"tasks is {tasks!r}, expected task: weight, with tasks from {', '.join(TASKS)}"
        return
    for task, weight in tasks.items():
        if task not in TASKS:
            yield f"tasks has '{task}', expected one of {', '.join(TASKS)}"
            continue
        for modality in TASKS[task]:
            if modality not in modalities:
                yield f"tasks has '{task}', but the model has no {modality}_frontend"
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not weight > 0:
            yield f"tasks.{task} is {weight!r}, expected a weight above 0"
