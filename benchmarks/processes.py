#!/usr/bin/env python3
"""Speed-up of training with a second process.

    python benchmarks/processes.py [--json OUT]   # 1 and 2 processes, a few minutes

Trains the small models of train.py with ESPnet's distributed training (gloo, CPU), one thread and
the same batch limits for each process, so two take half as many steps over the corpus. Runs with
one and with two processes alternate; a run warms up in its first epoch and is measured in its
second. The best possible speed of two processes, with a core each, is 2.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import timing
import torch
from training_data import lrs3_like, random_bases, task_arguments, write_corpus

from espnet_smop.corpus.shapes import make_shapes
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.train.trainer import AVSRTrainer


def write_training_set(args: argparse.Namespace, directory: Path) -> None:
    """Write base models and a corpus with LRS3's lengths, a few utterances for validation."""
    random_bases(args, directory)
    frames, text = lrs3_like(args.utterances)
    keys = [f"u{i:06d}" for i in range(args.utterances)]
    write_corpus(
        directory / "dump",
        dict(zip(keys, map(int, frames), strict=True)),
        dict(zip(keys, map(int, text), strict=True)),
    )
    make_shapes(directory / "dump", directory / "stats")
    shapes = (directory / "stats/duration_shape").read_text().splitlines(keepends=True)
    (directory / "stats/valid_shape").write_text("".join(shapes[:4]))


def train_rank(args: argparse.Namespace, directory: Path, output: Path) -> None:
    """Train as one of several processes, as ESPnet's launcher starts it on a node without GPU."""

    class Counted:
        """Batches of an epoch that are counted."""

        def __init__(self, batches):
            self.batches, self.steps, self.keys = batches, 0, []

        def __len__(self) -> int:
            return len(self.batches)

        def __iter__(self) -> Iterator:
            for keys, batch in self.batches:
                self.steps += 1
                self.keys += keys
                yield keys, batch

    class TimedTrainer(AVSRTrainer):
        """Records the time of each epoch."""

        @classmethod
        def train_one_epoch(cls, *, iterator, options, **kwargs) -> bool:
            counted = Counted(iterator)
            begin, cpu = time.perf_counter(), time.process_time()
            invalid = super().train_one_epoch(iterator=counted, options=options, **kwargs)
            row = {
                "seconds": time.perf_counter() - begin,
                "cpu": time.process_time() - cpu,
                "steps": counted.steps,
                "utterances": len(set(counted.keys)),
            }
            with (output / f"rank{args.rank}.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            return invalid

    class TimedTask(AVSRTask):
        trainer = TimedTrainer

    torch.set_num_threads(1)
    names = {"whisper": args.whisper, "avhubert": "avhubert_large", "llm": args.llm}
    bases = {kind: str(directory / name.replace("/", "--")) for kind, name in names.items()}
    task = task_arguments(args, bases, directory)
    task.output_dir = str(output / "exp")
    task.valid_data_path_and_name_and_type = task.train_data_path_and_name_and_type
    task.valid_shape_file = [str(directory / "stats/valid_shape")]
    task.use_preprocessor, task.max_epoch, task.ngpu = True, 2, 0
    task.batch_type = "tokens"
    # Limits are sums over all processes.
    task.batch_bins = 3 * args.batch_frames * args.processes
    task.batch_limits = {"frames": args.batch_frames * args.processes}
    task.num_att_plot, task.use_matplotlib, task.use_tensorboard = 0, False, False
    task.best_model_criterion = [["valid", "acc", "max"]]
    task.multiprocessing_distributed, task.dist_backend = True, "gloo"
    task.dist_world_size, task.dist_rank = args.processes, args.rank
    task.dist_init_method = f"file://{output}/rendezvous"
    TimedTask.main(args=task)


def train_by(args: argparse.Namespace, processes: int, directory: Path, output: Path) -> list[dict]:
    """Train with some processes; return the measured epoch of each."""
    output.mkdir()
    words = [sys.executable, __file__, "--batch_frames", str(args.batch_frames)]
    words += ["--directory", directory, "--output", output, "--processes", str(processes)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = []
    for rank in range(processes):
        with (output / f"rank{rank}.log").open("w") as log:
            ranks.append(
                subprocess.Popen([*words, "--rank", str(rank)], env=env, stdout=log, stderr=log)
            )
    while any(rank.poll() is None for rank in ranks):
        time.sleep(0.1)
        for rank, process in enumerate(ranks):
            if process.returncode:
                for other in ranks:  # they would wait for it
                    other.kill()
                sys.exit((output / f"rank{rank}.log").read_text()[-3000:])
    files = [output / f"rank{rank}.jsonl" for rank in range(processes)]
    return [json.loads(file.read_text().splitlines()[-1]) for file in files]


def measure(args: argparse.Namespace, directory: Path) -> dict:
    """Train with one and with two processes, alternately."""
    write_training_set(args, directory)
    runs: dict[int, list[list[dict]]] = {1: [], 2: []}
    for round_ in range(args.rounds):
        for processes, found in runs.items():
            found.append(train_by(args, processes, directory, directory / f"{processes}_{round_}"))
    seconds = {p: [max(r["seconds"] for r in run) for run in found] for p, found in runs.items()}
    cpu = {p: [sum(r["cpu"] for r in run) for run in found] for p, found in runs.items()}
    return {
        "rows": {
            p: {
                "steps": [row["steps"] for row in found[0]],
                "utterances": [row["utterances"] for row in found[0]],
                "seconds": statistics.median(seconds[p]),
                "cpu": statistics.median(cpu[p]),
                "speed": statistics.median(
                    one / these for one, these in zip(seconds[1], seconds[p], strict=True)
                ),
            }
            for p, found in runs.items()
        }
    }


def report(result: dict) -> str:
    header = ["processes", "steps of each", "utterances of each", "seconds", "CPU seconds", "speed"]
    rows = [
        [
            str(processes),
            *(" + ".join(map(str, row[name])) for name in ("steps", "utterances")),
            f"{row['seconds']:.1f}", f"{row['cpu']:.1f}", f"{row['speed']:.2f}",
        ]
        for processes, row in result["rows"].items()
    ]  # fmt: skip
    return timing.markdown(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--utterances", type=int, default=160, help="of the training set")
    parser.add_argument("--batch_frames", type=int, default=700, help="per process and step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all figures there")
    for name, kind in (("directory", Path), ("output", Path), ("processes", int), ("rank", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    # Used by the functions of training_data.py
    parser.set_defaults(
        tiny=True,
        device="cpu",
        num_workers=0,
        whisper="openai/whisper-base.en",
        llm="meta-llama/Llama-3.2-1B",
    )
    args = parser.parse_args()
    if args.rank is not None:
        train_rank(args, args.directory, args.output)
        return
    with tempfile.TemporaryDirectory() as directory:
        result = measure(args, Path(directory))
    print(report(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
