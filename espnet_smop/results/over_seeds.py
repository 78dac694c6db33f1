"""Systems that were trained with several seeds: mean, spread and significance over the seeds.

The trainings of one system are experiments whose names differ only in a final ``_seedN``, which one
of them may lack. The seed of each is read from its ``config.yaml``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from espnet_smop.results.crossed import crossed
from espnet_smop.results.decodes import Condition, Score
from espnet_smop.results.error_rates import UNKNOWN, level_names
from espnet_smop.results.intervals import Comparison
from espnet_smop.results.significance import holm
from espnet_smop.results.systems import System, conditions, read_systems
from espnet_smop.results.transcripts import ScoringError
from espnet_smop.text_table import text_table

_SEED = re.compile(r"_seed\d+(?= |$)")


class Spread(NamedTuple):
    """Error rates of a system over seeds.

    Attributes:
        seeds: number of seeds.
        mean: of the rates.
        deviation: their standard deviation (n - 1); None with one seed.
    """

    seeds: int
    mean: float
    deviation: float | None

    def __str__(self) -> str:
        spread = "" if self.deviation is None else f" ± {100 * self.deviation:.2f}"
        return f"{100 * self.mean:.2f}{spread}"


@dataclass
class SeededSystem:
    """A system as trained with one or several seeds, decoded under one tag.

    Attributes:
        name: unique among the systems compared, without the seed.
        task: ``ASR``, ``VSR`` or ``AVSR``.
        trainings: seed → the system trained with it.
    """

    name: str
    task: str
    trainings: dict[int, System] = field(default_factory=dict)

    def at(self, condition: Condition) -> dict[int, Score]:
        """Return the scores under a condition: seed → score."""
        scores = {seed: s.at(condition) for seed, s in sorted(self.trainings.items())}
        return {seed: score for seed, score in scores.items() if score is not None}

    def spread(self, condition: Condition) -> Spread | None:
        """Return mean and spread of the rates under a condition; None without scores."""
        rates = [score.rate for score in self.at(condition).values()]
        if not rates:
            return None
        deviation = float(np.std(rates, ddof=1)) if len(rates) > 1 else None
        return Spread(len(rates), float(np.mean(rates)), deviation)

    def compare(self, other: "SeededSystem", condition: Condition) -> Comparison | None:
        """Compare with another system, over the seeds that both have; None if there are none.

        Raises:
            ScoringError: the scores are of different utterances.
        """
        one, another = self.at(condition), other.at(condition)
        seeds = [seed for seed in one if seed in another]
        scores = [of[seed] for of in (one, another) for seed in seeds]
        if not scores:
            return None
        first = scores[0]
        for score in scores:
            first.check_same_test(score)
        errors = [score.errors for score in scores]
        half = len(seeds)
        return crossed(errors[:half], errors[half:], first.words, groups=first.groups)


def group_by_seed(systems: Sequence[System]) -> list[SeededSystem]:
    """Return the systems, in the order of their first training.

    Raises:
        ScoringError: a system was trained twice with the same seed.
    """
    groups: dict[tuple[Path, str], SeededSystem] = {}
    for system in systems:
        path = system.path.absolute()
        key = (path.with_name(_SEED.sub("", path.name)), system.tag)
        group = groups.setdefault(key, SeededSystem(_SEED.sub("", system.name), system.task))
        seed = system.config.get("seed", 0)
        if seed in group.trainings:
            raise ScoringError(
                f"{group.trainings[seed].path} and {system.path} have the same seed, {seed}: "
                "leave one out"
            )
        group.trainings[seed] = system
    return list(groups.values())


def rates_over_seeds(experiments: Sequence[Path], *, metric: str, unit: str) -> str:
    """Return as text, for each test set, error rates and differences from the first system.

    Empty if nothing is scored yet.

    Raises:
        ScoringError: a system was trained twice with the same seed, or scores to compare are of
            different utterances.
    """
    systems = read_systems(experiments, metric=metric, unit=unit)
    groups = group_by_seed(systems)
    blocks = []
    for test_set, of_set in groupby(conditions(systems), key=lambda c: c.test_set):
        levels = list(of_set)
        scored = [group for group in groups if any(group.at(level) for level in levels)]
        blocks += [
            f"{metric.upper()} in % on {test_set}, mean ± standard deviation over seeds",
            _rate_table(scored, levels),
        ]
        if len(scored) > 1:
            blocks += [
                f"Difference from {scored[0].name} in points, with 95 % intervals over seeds and "
                f"{unit}s (crossed bootstrap);\n"
                "p adjusted for the number of systems (Holm), * where it is below 0.05",
                _difference_table(scored, levels),
            ]
    return "\n".join(blocks)


def _rate_table(groups: Sequence[SeededSystem], levels: Sequence[Condition]) -> str:
    rows = []
    for group in groups:
        spreads = [group.spread(level) for level in levels]
        # Some trainings may not be scored yet
        seeds = sorted({spread.seeds for spread in spreads if spread})
        cells = [UNKNOWN if spread is None else str(spread) for spread in spreads]
        rows.append([group.task, group.name, "–".join(map(str, seeds)), *cells])
    return text_table(["task", "system", "seeds", *level_names(levels)], rows)


def _difference_table(groups: Sequence[SeededSystem], levels: Sequence[Condition]) -> str:
    first, *others = groups
    columns = []
    for level in levels:
        found = [group.compare(first, level) for group in others]
        adjusted = iter(holm([c.p_value for c in found if c]))
        columns.append([UNKNOWN if c is None else _difference(c, next(adjusted)) for c in found])
    rows = [
        [group.task, group.name, *cells] for group, *cells in zip(others, *columns, strict=True)
    ]
    return text_table(["task", "system", *level_names(levels)], rows)


def _difference(c: Comparison, p_value: float) -> str:
    points = [round(100 * x, 2) + 0.0 for x in c[:3]]  # not -0.0
    star = "*" if p_value < 0.05 else ""
    return "{:+.2f} [{:+.2f}, {:+.2f}] p={:.3f}{}".format(*points, p_value, star)
