#!/usr/bin/env python3
"""Compare one model's views with single-task models: seconds of each, and whether a task is worse.

Called by ``local/run_omni.sh``, with experiments in its order::

    local/compare_views.py EXP…
"""

import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from espnet2.torch_utils.safe_torch_load import safe_torch_load

from espnet_smop.results.error_rates import describe_difference
from espnet_smop.results.systems import System, conditions, read_systems
from espnet_smop.text_table import text_table

UNKNOWN = "–"


def training_seconds(experiment: Path) -> float | None:
    """Return the logged time of training and validation; None without logs."""
    path = experiment / "checkpoint.pth"
    if not path.is_file():
        return None
    epochs = safe_torch_load(path, map_location="cpu")["reporter"]["stats"].values()
    parts = (part for epoch in epochs for part in (epoch["train"], epoch["valid"]))
    return sum(_seconds(part["time"]) for part in parts)


def _seconds(time: timedelta | dict[str, float]) -> float:
    # ESPnet's checkpoints hold the number in a dictionary, its reporter a timedelta.
    return time["__timedelta_seconds__"] if isinstance(time, dict) else time.total_seconds()


def finest(systems: Sequence[System], of: System) -> System | None:
    """Return the view with most tokens of an experiment's task; None without rates to choose."""
    views = [s for s in systems if (s.path, s.task) == (of.path, of.task) and s.view is not None]
    views = [s for s in views if s.view.rates]
    return max(views, key=lambda s: s.costs.tokens_per_second, default=None)


def costs(systems: Sequence[System]) -> str:
    """Return a table of systems; ``faster`` is relative to the task's view with most tokens."""
    rows = []
    for system in systems:
        trained = training_seconds(system.path)
        row = [system.task, system.name, UNKNOWN if trained is None else f"{trained:,.0f}"]
        if system.costs is None:
            rows.append([*row, UNKNOWN, UNKNOWN, UNKNOWN])
            continue
        took = system.costs.decoding_seconds
        slowest = finest(systems, system) or system
        ratio = f"{slowest.costs.decoding_seconds / took:.2f} x"
        rows.append([*row, f"{system.costs.tokens_per_second:.1f}", f"{took:,.0f}", ratio])
    header = ["task", "system", "training s", "tokens/s", "decoding s", "faster"]
    return text_table(header, rows, align="llrrrr")


def comparisons(systems: Sequence[System]) -> list[str]:
    """Compare each single-task model with the finest view of the model listed before it."""
    lines, views = [], {}
    for system in systems:
        if (view := finest(systems, system)) is not None:
            views[system.task] = view
        elif (view := views.get(system.task)) is not None:
            for condition in conditions([system]):
                scores = view.at(condition), system.at(condition)
                if None not in scores:
                    text = describe_difference(*scores, metric="wer")
                    lines.append(f"{view.name} (A), {system.name} (B), {condition}: {text}")
    return lines


if __name__ == "__main__":
    found = read_systems([Path(p) for p in sys.argv[1:]], metric="wer", unit="utterance")
    print(costs(found), *comparisons(found), sep="\n")
