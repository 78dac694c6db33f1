"""Shared by the benchmarks: options, clock, turns, time limit, memory, growth, tables and files."""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every benchmark that runs on a GPU as well."""
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seconds", type=float, help="begin no other measurement after so long")
    parser.add_argument("--json", type=Path, help="write all figures there")


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; ``deadline`` is a `Deadline` from now on."""
    args = parser.parse_args()
    args.deadline = Deadline(args.seconds)
    return args


def save(args: argparse.Namespace, figures: Mapping[str, Any]) -> None:
    """Write figures and their options, if a file is given."""
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k not in ("json", "deadline")}
        text = json.dumps({"settings": settings, **figures}, indent=1, default=str)
        args.json.write_text(text + "\n")


def now(device: str) -> float:
    """Return seconds: processor time on a CPU; wall-clock time on a GPU, after synchronising."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


class Deadline:
    """A time limit that a benchmark checks between two measurements.

    Args:
        seconds: from now on; None is no limit.
    """

    def __init__(self, seconds: float | None):
        self.end = math.inf if seconds is None else time.monotonic() + seconds

    def passed(self) -> bool:
        """Whether it is over."""
        return time.monotonic() > self.end


def interleaved(
    runs: Mapping[str, Callable[[], object]],
    repeats: int,
    device: str = "cpu",
    deadline: Deadline | None = None,
) -> dict[str, float]:
    """Return each run's median seconds; runs are interleaved, after one of each to warm up.

    No round begins after the deadline.
    """
    times = {name: [] for name in runs}
    for run in runs.values():
        run()
    for round_ in range(repeats):
        if round_ and deadline is not None and deadline.passed():
            break
        for name, run in runs.items():
            start = now(device)
            run()
            times[name].append(now(device) - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def peak_memory(run: Callable[[], object], device: str) -> float:
    """Return a run's peak of allocated memory beyond what was allocated before, in MiB."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        run()
    allocated = peak = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            allocated += event.nbytes()
            peak = max(peak, allocated)
    return peak / 2**20


def slope(costs: Mapping[float, float]) -> float:
    """Return the exponent of growth of size → cost: the slope of a log-log fit.

    1 is linear.
    """
    sizes, values = np.log(list(costs)), np.log(list(costs.values()))
    return float(np.polyfit(sizes, values, 1)[0])


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(
        "| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)
    )
