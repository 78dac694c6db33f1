"""Error rate against the width of a layer, for systems trained with several seeds.

A system is a family of experiments ``NAME_wN`` that differ in a width N, each trained with one or
several seeds (``NAME_wN_seedM``).
"""

import re
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.results import figures
from espnet_smop.results.decodes import Condition
from espnet_smop.results.exhibits import RATES, Exhibit
from espnet_smop.results.over_seeds import SeededSystem, Spread, group_by_seed
from espnet_smop.results.systems import conditions, read_systems
from espnet_smop.results.transcripts import ScoringError

_NAME = re.compile(r"(?P<family>.+)_w(?P<width>\d+)(?= |$)")

Curves = dict[str, dict[int, Spread]]
"""Family → width → error rate."""


def width_exhibit(experiments: Sequence[Path], *, metric: str) -> Exhibit:
    """Return the figure, a panel for each condition, and its numbers.

    Raises:
        ScoringError: an experiment's name has no width, or nothing is scored yet.
    """
    systems = read_systems(experiments, metric=metric, unit="utterance", shorten=True)
    groups = [(*_family_and_width(group), group) for group in group_by_seed(systems)]
    where = conditions(systems)
    if not where:
        raise ScoringError("nothing is scored yet: run stages 12 and 13")
    panels: dict[Condition, Curves] = {condition: {} for condition in where}
    rows = []
    for condition, curves in panels.items():
        for family, width, group in groups:
            spread = group.spread(condition)
            if spread is None:
                continue
            curves.setdefault(family, {})[width] = spread
            config = next(iter(group.trainings.values())).config
            rows.append({
                "system": family, "width": width,
                "hidden_size": config.get("projector_conf", {}).get("hidden_size"),
                **condition._asdict(), "seeds": spread.seeds, "mean": round(100 * spread.mean, 4),
                "deviation": None if spread.deviation is None else round(100 * spread.deviation, 4),
            })  # fmt: skip
    titles = {str(condition): curves for condition, curves in panels.items()}
    if len({c.test_set for c in where}) == 1:
        titles = {condition.level: curves for condition, curves in panels.items()}
    return Exhibit(
        name="width",
        title=f"{metric.upper()} against hidden width",
        caption="Mean over seeds; bars are one standard deviation.",
        section=RATES,
        figure=figures.width_curves(titles, f"{metric.upper()} (%)"),
        rows=rows,
    )


def _family_and_width(group: SeededSystem) -> tuple[str, int]:
    found = _NAME.match(group.name)
    if found is None:
        raise ScoringError(f"{group.name} has no width: experiments are called NAME_wN")
    return found["family"].replace("_", " "), int(found["width"])
