#!/usr/bin/env python3
"""Mutation testing: put small faults into code, and list those that no test notices.

    python tools/mutants.py --sample 100 --seed 1        # of the default files, see --help
    python tools/mutants.py espnet_smop/projector        # every mutant of a directory
    python tools/mutants.py espnet_smop/views.py:40      # of one line, e.g. after a new test

A mutant has one change: a comparison, arithmetic or boolean operator, a negated condition, a number
± 1, True/False, a default, min/max, a slice's bound, a call left out, `return None`. Messages,
annotations and `__repr__` stay. Its tests are those beside the source file in test/ and those that
import it. They first run without a mutant, to record the lines each of them reaches; each mutant
then runs against the tests that reach its statement, in a forked process that has the libraries
imported. Tests marked slow or longer than --longest seconds are left out; code that tests run in
other processes stays unchanged there.

test/mutants_equivalent.txt lists mutants that no test could notice, each with the reason.
"""

import argparse
import contextlib
import gc
import importlib.machinery
import math
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from mutations import Mutant, equivalent, mutants_of
from reach import Chosen, Reached, Recorder, files_of, processor_seconds, tests_of

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENT = ROOT / "test/mutants_equivalent.txt"
PATHS = """projector decoder checkpoint views.py view_steps.py model.py
    results/alignment.py results/intervals.py results/significance.py results/over_seeds.py
    results/crossed.py train/token_batches.py train/noise.py corpus/mouth.py corpus/clips.py"""
LATE = (signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL)


def draw(words: list[str], sample: int | None, seed: int) -> list[Mutant]:
    """Return the mutants of files, directories or ``file:line``, or a random sample of them."""
    found = []
    for word in words:
        path, _, line = word.partition(":")
        files = sorted((ROOT / path).rglob("*.py")) if (ROOT / path).is_dir() else [ROOT / path]
        for file in files:
            mutants = mutants_of(str(file.relative_to(ROOT)), file.read_bytes())
            found += [m for m in mutants if not line or m.line == int(line)]
    left_out = equivalent(EQUIVALENT.read_text())
    found = [m for m in found if m.key not in left_out]
    if sample is not None and sample < len(found):
        found = sorted(random.Random(seed).sample(found, sample), key=lambda m: (m.path, m.line))
    return found


def fork(
    files: list[str],
    directory: Path,
    plugin: Callable,
    mutant: Mutant | None = None,
    limit: int = 0,
) -> int:
    """Start pytest in a forked process, and return its id."""
    if pid := os.fork():
        return pid
    try:
        os.setsid()
        output = os.open(directory / "output", os.O_CREAT | os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(output, stream)
        options = ["-q", "-m", "not slow", "-o", "addopts=--import-mode=importlib"]
        options += ["-p", "no:cacheprovider", "-p", "no:timeout", f"--basetemp={directory}/tmp"]
        if mutant:
            # In processor seconds, so that a busy machine does not change what is noticed
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
            resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
            signal.alarm(20 * limit)
            loader, path = importlib.machinery.SourceFileLoader, str(ROOT / mutant.path)
            original, code = loader.get_code, compile(mutant.source, path, "exec")
            loader.get_code = lambda self, name: code if self.path == path else original(self, name)
            options.append("-x")
        os._exit(pytest.main([*options, *files], plugins=[plugin()]))
    except BaseException:
        os._exit(1)


def reached(args: argparse.Namespace, paths: set[str], directory: Path) -> Reached:
    """Run the tests without a mutant, or read what an earlier call recorded."""
    if args.reach and args.reach.exists():
        return Reached(*pickle.loads(args.reach.read_bytes()))
    files = args.tests or sorted(set().union(*(tests_of(ROOT, path) for path in paths)))
    file = directory / "reach"
    pid = fork(files, directory, partial(Recorder, ROOT, paths, file))
    if os.waitpid(pid, 0)[1]:
        sys.exit(f"{(directory / 'output').read_text()}\nThe tests fail without a mutant.")
    if args.reach:
        shutil.copy(file, args.reach)
    return Reached(*pickle.loads(file.read_bytes()))


def outcomes(
    mutants: list[Mutant], args: argparse.Namespace, directory: Path
) -> Iterator[tuple[Mutant, str]]:
    """Yield each mutant with ``noticed``, ``timed out``, ``survived`` or ``not reached``."""
    known = reached(args, {m.path for m in mutants}, directory)
    for name in known.modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.freeze()  # so that forks share these pages
    waiting, running = list(enumerate(mutants)), {}
    try:
        while waiting or running:
            if waiting and len(running) < args.jobs:
                i, mutant = waiting.pop(0)
                tests = known.tests(mutant, args.longest)
                if not tests:
                    yield mutant, "not reached"
                    continue
                own = directory / str(i)
                own.mkdir()
                chosen, limit = partial(Chosen, set(tests)), math.ceil(20 + 5 * sum(tests.values()))
                running[fork(files_of(tests), own, chosen, mutant, limit)] = mutant, own
                continue
            pid, status = os.wait()
            mutant, own = running.pop(pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # what its tests started
            shutil.rmtree(own, ignore_errors=True)
            late = os.WIFSIGNALED(status) and os.WTERMSIG(status) in LATE
            yield mutant, "survived" if status == 0 else "timed out" if late else "noticed"
    finally:  # after Ctrl-C
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def wilson(noticed: int, total: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a rate."""
    z, p = 1.96, noticed / total
    middle = p + z * z / (2 * total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return (middle - half) / (1 + z * z / total), (middle + half) / (1 + z * z / total)


def main() -> None:
    """Run a sample of mutants; print them and the rate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = [f"espnet_smop/{path}" for path in PATHS.split()]
    parser.add_argument("paths", nargs="*", default=default, help="default: " + " ".join(default))
    parser.add_argument("--sample", type=int, help="number of mutants; default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    parser.add_argument("--tests", nargs="+", help="test files, instead of those of each source")
    parser.add_argument("--longest", type=float, default=3, help="seconds that a test may take")
    parser.add_argument("--list", action="store_true", help="print the mutants and stop")
    parser.add_argument(
        "--reach", type=Path, help="file to keep the run without a mutant in; delete it to renew it"
    )
    args = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    mutants = draw(args.paths, args.sample, args.seed)
    counts, start = Counter(), processor_seconds()
    with tempfile.TemporaryDirectory(prefix="mutants", ignore_cleanup_errors=True) as directory:
        listed = (
            ((m, "") for m in mutants) if args.list else outcomes(mutants, args, Path(directory))
        )
        for mutant, outcome in listed:
            counts[outcome] += 1
            change = "" if outcome == "noticed" else f"\n  - {mutant.old}\n  + {mutant.new}"
            print(f"{outcome:<11} {mutant.path}:{mutant.line}{change}".strip(), flush=True)
    total, noticed = len(mutants), counts["noticed"] + counts["timed out"]
    if args.list or not total:
        return print(f"{total} mutants")
    low, high = (100 * bound for bound in wilson(noticed, total))
    print(
        f"{noticed} of {total} mutants noticed: {100 * noticed / total:.1f} %, 95 % interval "
        f"{low:.1f} to {high:.1f} ("
        + ", ".join(f"{n} {what}" for what, n in counts.items())
        + f"); {processor_seconds() - start:.0f} processor seconds"
    )


if __name__ == "__main__":
    main()
