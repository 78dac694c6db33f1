"""Shared by the benchmarks: clock, peak memory, growth and Markdown tables."""

import os
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch


def now(device: str) -> float:
    """Return seconds: of the processor on a CPU, of the wall clock on a GPU that has finished."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory(run: Callable[[], object], device: str) -> float:
    """Return the peak of allocated memory in one run beyond what was allocated before, in MiB."""
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
    """Return the exponent of growth of size → cost: the slope of the line through the logarithms.

    1 is linear.
    """
    sizes, values = np.log(list(costs)), np.log(list(costs.values()))
    return float(np.polyfit(sizes, values, 1)[0])


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(
        "| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)
    )
