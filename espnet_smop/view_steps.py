"""The views of a model, and which of them each training step uses."""

import itertools
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import nn

from espnet_smop.views import RATE_PAIRS, TASKS, View, choose_task, rate_pairs_of


class Views(nn.Module):
    """The views of a model, and which of them each training step uses.

    With ``rate_pairs: sample`` every step uses one pair of rates, and all pairs come equally often,
    in shuffled rounds. The order depends only on the step number, so it is the same in all
    processes, and a resumed training continues it.

    Args:
        tasks: task → weight of its loss.
        rates: modality → rates of the projector; empty if it has a single rate.
        rate_pairs: ``sample``, one pair of audio and video rates per step, or ``all``; None is
            ``sample``.

    Attributes:
        all: every view once; its weight is the mean over the steps.
        steps: lists of views, one of which is used per step.
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
        """All modalities of the views."""
        return {modality for view in self.all for modality in view.modalities}

    def restrict_to(self, view: View) -> None:
        """Keep a single view: the model then has one task at given rates."""
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
        """Return the statistics of a step: means over its views and, if several, those of each.

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
        """Return the view to decode with.

        Args:
            task: None is the task with the most modalities.
            rates: modality → rate; by default the model's first ones.

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
                f"{known or 'a single rate, so leave rates out'}"
            )
        return found[0]

    def for_modalities(self, view: View, modalities: Collection[str]) -> View:
        """Return the view, at the same rates, of the task that takes exactly these modalities.

        If there is none, return ``view`` itself.
        """
        for other in self.all:
            if set(other.modalities) == set(modalities) and (
                other.rates.items() <= view.rates.items()
            ):
                return other
        return view


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
