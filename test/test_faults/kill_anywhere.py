#!/usr/bin/env python3
"""Kill the mini recipe's stages at random moments and compare what comes out in the end.

Runs the smoke size of the mini recipe twice, stage by stage: once undisturbed, once with SIGKILL
to stages 1, 3, 6, 11, 12, 13 and 16 at random moments, each started again until all its kills are
done and it finishes. Then data directories, clips, base models, checkpoints, hypotheses and scores
of both must be the same. Prints a table of kills and the differences; status 1 if there are any.

Example::

    python test/test_faults/kill_anywhere.py --dir /tmp/kills --kills 21
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
STAGES = (1, 3, 4, 5, 6, 7, 10, 11, 12, 13, 16)
KILLED = (1, 3, 6, 11, 12, 13, 16)
_SETTLE = 3.0  # seconds in which jobs notice that their driver is gone
# What of a run may differ: logs, times, and what was only needed on the way.
_IGNORED_PARTS = {"logs", "logdir", "records", "tensorboard", "images", "conf"}
_IGNORED_NAMES = {"train.log", "checkpoint.pth", "RESULTS.md", "feats_cache.log", ".lock"}
# Time and memory that pretraining and decoding measure, and the report repeats.
_MEASURED = {"rtf", "memory_mib", "seconds", "decoding_seconds", "peak_memory_mib"}


def clone(directory: Path) -> Path:
    """Copy the recipes without what they made; return the mini recipe's directory."""
    ignored = shutil.ignore_patterns("data", "dump", "exp", "downloads")
    shutil.copytree(ROOT / "egs2", directory / "egs2", symlinks=True, ignore=ignored)
    return directory / "egs2" / "mini_lrs3" / "avsr_smop1"


def start(recipe: Path, stage: int, log: Path) -> subprocess.Popen:
    """Start one stage in a process group of its own."""
    python_path = ":".join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    env = {**os.environ, "ESPNET_SMOP_PYTHON": sys.executable, "PYTHONPATH": python_path}
    env.pop("OMP_NUM_THREADS", None)
    with open(log, "a") as sink:
        return subprocess.Popen(
            ["./run.sh", "--size", "smoke", "--ngpu", "0",
             "--stage", str(stage), "--stop_stage", str(stage)],
            cwd=recipe, env=env, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def finish(recipe: Path, stage: int, log: Path) -> float:
    """Run one stage to its end; return the seconds it took."""
    begun = time.monotonic()
    status = start(recipe, stage, log).wait()
    if status:
        raise RuntimeError(f"stage {stage} ended with status {status}: see {log}")
    return time.monotonic() - begun


def kill_after(recipe: Path, stage: int, seconds: float, log: Path) -> float | None:
    """Start a stage and kill it after so many seconds; if it had ended before, return when."""
    begun = time.monotonic()
    process = start(recipe, stage, log)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(_SETTLE)
        return None
    if process.returncode:
        raise RuntimeError(f"stage {stage} ended with status {process.returncode}: see {log}")
    return time.monotonic() - begun


def _is_result(path: Path, name: Path) -> bool:
    return (
        path.is_file()
        and not path.is_symlink()
        and not _IGNORED_PARTS & set(name.parts)
        and path.name not in _IGNORED_NAMES
        and path.suffix not in {".log", ".html", ".png", ".svg"}
        and not path.name.startswith("events.out")
    )


def results(recipe: Path) -> dict[str, Path]:
    """Return the files of a run that must not depend on kills, by relative path."""
    found = {}
    for top in ("downloads", "data", "dump", "exp"):
        for path in sorted((recipe / top).rglob("*")):
            if _is_result(path, path.relative_to(recipe)):
                found[str(path.relative_to(recipe))] = path
    return found


def _same(one: Path, other: Path, roots: tuple[Path, Path]) -> bool:
    if one.suffix == ".pth":
        a, b = (torch.load(p, weights_only=True, map_location="cpu") for p in (one, other))
        return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    texts = [
        p.read_bytes().replace(str(root).encode(), b"ROOT")
        for p, root in zip((one, other), roots, strict=True)
    ]
    if texts[0] == texts[1]:
        return True
    if one.suffix == ".json" or one.name == "complete":
        try:
            values = [json.loads(text) for text in texts]
        except ValueError:
            return False
        return _without_measured(values[0]) == _without_measured(values[1])
    if one.suffix == ".csv":
        tables = [list(csv.DictReader(text.decode().splitlines())) for text in texts]
        return _without_measured(tables[0]) == _without_measured(tables[1])
    return False


def _without_measured(value):
    if isinstance(value, dict):
        return {k: _without_measured(v) for k, v in value.items() if k not in _MEASURED}
    if isinstance(value, list):
        return [_without_measured(v) for v in value]
    return value


def differences(one: Path, other: Path) -> list[str]:
    """Return what differs between two runs."""
    ours, theirs = results(one), results(other)
    problems = [f"only in the undisturbed run: {n}" for n in sorted(ours.keys() - theirs.keys())]
    problems += [f"only in the killed run: {n}" for n in sorted(theirs.keys() - ours.keys())]
    problems += [
        f"differs: {n}"
        for n in sorted(ours.keys() & theirs.keys())
        if not _same(ours[n], theirs[n], (one, other))
    ]
    return problems


def run(directory: Path, kills: int, seed: int) -> list[str]:
    """Make both runs; return the differences."""
    chance = random.Random(seed)
    calm, killed = clone(directory / "calm"), clone(directory / "killed")
    logs = directory / "calm.log", directory / "killed.log"
    wanted = {s: kills // len(KILLED) + (i < kills % len(KILLED)) for i, s in enumerate(KILLED)}
    for stage in STAGES:
        took = finish(calm, stage, logs[0])
        print(f"stage {stage}: undisturbed {took:.1f} s", flush=True)
        done = 0
        before = directory / "before"
        shutil.copytree(killed, before, symlinks=True)
        while done < wanted.get(stage, 0):
            moment = chance.uniform(0.3, took)
            ended = kill_after(killed, stage, moment, logs[1])
            if ended is None:
                done += 1
                print(f"stage {stage}: killed after {moment:.1f} s", flush=True)
            else:
                # It went on from the kills before, or the machine is less busy: let it begin anew
                print(f"stage {stage}: had finished after {ended:.1f} s", flush=True)
                took = max(1.0, min(took, ended))
                shutil.rmtree(killed)
                shutil.copytree(before, killed, symlinks=True)
        shutil.rmtree(before)
        finish(killed, stage, logs[1])
    return differences(calm, killed)


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, required=True, help="Directory for both runs")
    parser.add_argument("--kills", type=int, default=21, help="How many in all (default 21)")
    parser.add_argument("--seed", type=int, default=0, help="Of the moments (default 0)")
    args = parser.parse_args()
    problems = run(args.dir, args.kills, args.seed)
    for line in problems:
        print(line)
    print(f"{args.kills} kills, {len(problems)} differences in {len(results_of(args.dir))} files")
    return int(bool(problems))


def results_of(directory: Path) -> dict[str, Path]:
    """Return the compared files of the undisturbed run."""
    return results(directory / "calm" / "egs2" / "mini_lrs3" / "avsr_smop1")


if __name__ == "__main__":
    sys.exit(main())
