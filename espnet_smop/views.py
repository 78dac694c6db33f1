"""What one training step asks of the LLM: tasks, rates and their weights in the loss.

A **view** is a task (which modalities) at rates (how many encoder frames make one token). A step
encodes a batch once, and then projects, decodes and adds a weighted loss for each of its views.
Llama-SMoP has one view; Omni-AVSR (arXiv 2511.07253) has three tasks, and draws one pair of audio
and video rates a step; Llama-MTSK (arXiv 2503.06362) has all pairs in every step.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

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
    """Return all pairs of one audio and one video rate; the audio rate changes first."""
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
        """What the LLM reads, in this order."""
        return TASKS[self.task]

    @property
    def rates_tag(self) -> str:
        """See `rates_tag`; empty without rates."""
        return rates_tag(self.rates)

    @property
    def tag(self) -> str:
        """The view as part of a name, such as ``avsr_a4_v2``."""
        return "_".join(part for part in (self.task, self.rates_tag) if part)


class Views(nn.Module):
    """The views of a model, and which of them each step has.

    With ``rate_pairs: sample`` every step has one pair of rates, and all pairs come equally often:
    one shuffled round of them follows another. The order depends only on the number of the step, so
    it is the same in all processes, and a resumed training continues it.

    Args:
        tasks: task → weight of its loss.
        rates: modality → rates of the projector; empty if it has a single rate.
        rate_pairs: ``sample``, one pair of audio and video rates a step, or ``all``; None is
            ``sample``.

    Attributes:
        all: every view once; its weight is the mean over the steps.
        steps: the views of each step, of which one is taken at a time.
    """

    def __init__(
        self,
        tasks: Mapping[str, float],
        rates: Mapping[str, Sequence[int]] | None = None,
        rate_pairs: str | None = None,
    ):
        super().__init__()
        if rate_pairs not in (None, *RATE_PAIRS):
            raise ValueError(f"rate_pairs is {rate_pairs!r}, expected {' or '.join(RATE_PAIRS)}")
        self.steps = [
            [
                View(task, {m: r for m, r in pair.items() if m in TASKS[task]}, w / len(tasks))
                for task, w in tasks.items()
            ]
            for pair in rate_pairs_of(rates or {})
        ]
        self.all = _joined(self.steps)
        if rate_pairs == "all":
            self.steps = [self.all]
        if self.vary:
            self.register_buffer("step", torch.zeros((), dtype=torch.long))

    @property
    def vary(self) -> bool:
        """Whether steps have different views."""
        return len(self.steps) > 1

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of the model."""
        return tuple(dict.fromkeys(view.task for view in self.all))

    @property
    def modalities(self) -> set[str]:
        """What the views take together."""
        return {modality for view in self.all for modality in view.modalities}

    def restrict_to(self, view: View) -> None:
        """Keep a single view: the model is then one for a task at given rates."""
        self.all = [View(view.task, view.rates)]
        self.steps = [self.all]

    def next_step(self) -> list[View]:
        """Return the views of the next training step, and count it."""
        if not self.vary:
            return self.steps[0]
        number, place = divmod(int(self.step), len(self.steps))
        self.step += 1
        order = torch.randperm(len(self.steps), generator=torch.Generator().manual_seed(number))
        return self.steps[int(order[place])]

    def statistics(self, by_view: Mapping[View, Mapping[str, torch.Tensor]]) -> dict:
        """Return the statistics of a step: means over its views and, if there are several, each's.

        Args:
            by_view: name → scalar, for each view of the step.
        """
        if len(self.all) == 1:
            return dict(by_view[self.all[0]])
        weights: dict[str, float] = {}
        sums: dict[str, torch.Tensor] = {}
        own = {}
        for view, stats in by_view.items():
            for name, value in stats.items():
                weights[name] = weights.get(name, 0.0) + view.weight
                sums[name] = sums.get(name, 0.0) + view.weight * value
                if not name.startswith("router_"):
                    own[f"{name}_{view.tag}"] = value
        return {name: value / weights[name] for name, value in sums.items()} | own

    def find(self, task: str | None = None, rates: Mapping[str, int] | None = None) -> View:
        """Return a view, to decode with it.

        Args:
            task: None is the task with the most modalities.
            rates: modality → rate; where none is given, the first that the model has.

        Raises:
            ValueError: the model has no such task or rate; says which it has.
        """
        task = choose_task(self.tasks, task)
        rates = rates or {}
        for modality, rate in rates.items():
            if modality not in TASKS[task]:
                raise ValueError(
                    f"rates has {modality}={rate}, but the task {task} takes "
                    f"{' and '.join(TASKS[task])}"
                )
        found = [
            view
            for view in self.all
            if view.task == task and rates.items() <= dict(view.rates).items()
        ]
        if not found:
            known = ", ".join(_as_options(v) for v in self.all if v.task == task)
            raise ValueError(
                f"the model has no rates {_listed(rates)} for {task}; it has: "
                f"{known or 'a single rate, which is not chosen'}"
            )
        return found[0]

    def for_modalities(self, view: View, modalities: Collection[str]) -> View:
        """Return the view, at the same rates, of the task that takes exactly these modalities.

        Without such a task it is ``view`` itself.
        """
        for other in self.all:
            if set(other.modalities) == set(modalities) and (
                other.rates.items() <= view.rates.items()
            ):
                return other
        return view


def choose_task(tasks: Collection[str], task: str | None = None) -> str:
    """Return the task to decode with; None is the one with the most modalities.

    Raises:
        ValueError: the model, whose tasks are given, does not have it.
    """
    if task is None:
        return max(tasks, key=lambda t: len(TASKS[t]))
    if task not in tasks:
        raise ValueError(f"task is '{task}', but the model has {', '.join(tasks)}")
    return task


def parse_rates(text: str) -> dict[str, int]:
    """Read ``audio=4,video=2``, or one of them.

    Raises:
        ValueError: it is something else.
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
    """Yield what is wrong with ``model_conf.tasks``, for a model with these modalities."""
    if not isinstance(tasks, Mapping) or not tasks:
        yield f"tasks is {tasks!r}, expected task: weight, with tasks of {', '.join(TASKS)}"
        return
    for task, weight in tasks.items():
        if task not in TASKS:
            yield f"tasks has '{task}', expected tasks of {', '.join(TASKS)}"
            continue
        for modality in TASKS[task]:
            if modality not in modalities:
                yield f"tasks has '{task}', but the model has no {modality}_frontend"
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not weight > 0:
            yield f"tasks.{task} is {weight!r}, expected a weight above 0"


def _joined(steps: Sequence[Sequence[View]]) -> list[View]:
    """Return each view once, weighted as in the mean over the steps."""
    weights: dict[View, float] = {}
    for view in itertools.chain(*steps):
        weights[view] = weights.get(view, 0.0) + view.weight / len(steps)
    return [View(view.task, view.rates, weight) for view, weight in weights.items()]


def _listed(rates: Mapping[str, int]) -> str:
    return ",".join(f"{modality}={rate}" for modality, rate in rates.items())


def _as_options(view: View) -> str:
    return _listed(view.rates) if view.rates else ""
