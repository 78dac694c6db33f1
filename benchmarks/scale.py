#!/usr/bin/env python3
"""How training grows with processes, and how every stage grows with the corpus.

    python benchmarks/scale.py processes [--json OUT]   # 1 and 2 processes, a few minutes
    python benchmarks/scale.py corpus [--json OUT]      # 200, 600 and 2,000 utterances, longer

`processes` trains the small models of train.py by ESPnet's distributed training (gloo, CPU), one
thread and the same limits of a batch for each process, so that two take half as many steps over
the corpus. Numbers of processes take turns; a run warms up in its first epoch and is measured in
its second. The speed is that of this epoch: 2 is the best that two processes can do, where each has
a core of its own.

`corpus` runs the mini recipe in a copy of its own: preparation (stages 1 to 4), one epoch of
training over the whole training set, and decoding of every utterance of the corpus by one model. A
cost is the processor time of all processes. The slope is that of the logarithms, of utterances and
costs beyond those of the smallest corpus, where nearly all is start-up: 1 is linear.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PARTS = {"prepare": "stages 1–4", "train": "one epoch", "decode": "all utterances"}
SETS = ("pretrain", "train", "valid", "test")


def slope(costs: dict[int, float]) -> float:
    """Return the exponent of growth: the slope of the least-squares line in the logarithms."""
    sizes, values = np.log(list(costs)), np.log(list(costs.values()))
    return float(np.polyfit(sizes, values, 1)[0])


# Processes


def write_training_set(args: argparse.Namespace, directory: Path) -> None:
    """Write base models and a corpus as long as LRS3's, of which a few are for validation."""
    import train

    from espnet_smop.corpus.shapes import make_shapes

    train.random_bases(args, directory)
    frames, text = train.lrs3_like(args.utterances)
    keys = [f"u{i:06d}" for i in range(args.utterances)]
    train.write_corpus(
        directory / "dump",
        dict(zip(keys, map(int, frames), strict=True)),
        dict(zip(keys, map(int, text), strict=True)),
    )
    make_shapes(directory / "dump", directory / "stats")
    shapes = (directory / "stats/duration_shape").read_text().splitlines(keepends=True)
    (directory / "stats/valid_shape").write_text("".join(shapes[:4]))


def train_rank(args: argparse.Namespace, directory: Path, output: Path) -> None:
    """Train as one of several processes, as ESPnet's launcher starts it on a node without GPU."""
    import torch
    import train

    from espnet_smop.tasks.avsr import AVSRTask
    from espnet_smop.train.trainer import AVSRTrainer

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
        """Notes what each epoch takes."""

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
    task = train.task_arguments(args, bases, directory)
    task.output_dir = str(output / "exp")
    task.valid_data_path_and_name_and_type = task.train_data_path_and_name_and_type
    task.valid_shape_file = [str(directory / "stats/valid_shape")]
    task.use_preprocessor, task.max_epoch, task.ngpu = True, 2, 0
    task.batch_type = "tokens"
    # Limits are those of all processes together.
    task.batch_bins = 3 * args.batch_frames * args.processes
    task.batch_limits = {"frames": args.batch_frames * args.processes}
    task.num_att_plot, task.use_matplotlib, task.use_tensorboard = 0, False, False
    task.best_model_criterion = [["valid", "acc", "max"]]
    task.multiprocessing_distributed, task.dist_backend = True, "gloo"
    task.dist_world_size, task.dist_rank = args.processes, args.rank
    task.dist_init_method = f"file://{output}/rendezvous"
    TimedTask.main(args=task)


def train_by(args: argparse.Namespace, processes: int, directory: Path, output: Path) -> list[dict]:
    """Train by some processes; return what the measured epoch was for each of them."""
    output.mkdir()
    words = [sys.executable, __file__, "processes", "--batch_frames", str(args.batch_frames)]
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


def measure_processes(args: argparse.Namespace, directory: Path) -> dict:
    """Train by one and by two processes in turns."""
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


def report_processes(result: dict) -> str:
    lines = [
        "| processes | steps of each | utterances of each | seconds | CPU seconds | speed |",
        "|---" * 6 + "|",
    ]
    for processes, row in result["rows"].items():
        each = (" + ".join(map(str, row[name])) for name in ("steps", "utterances"))
        lines.append(
            f"| {processes} | {' | '.join(each)} | {row['seconds']:.1f} | {row['cpu']:.1f} "
            f"| {row['speed']:.2f} |"
        )
    return "\n".join(lines)


# Corpus


class Recipe:
    """The mini recipe in a directory of its own.

    Args:
        directory: gets ``egs2``.
        smallest: size whose base models and trained model serve all others.
    """

    def __init__(self, directory: Path, smallest: int):
        ignored = shutil.ignore_patterns("data", "dump", "exp", "downloads")
        shutil.copytree(ROOT / "egs2", directory / "egs2", symlinks=True, ignore=ignored)
        self.path = directory / "egs2/mini_lrs3/avsr_smop1"
        self.smallest = smallest
        self.env = {
            **os.environ,
            "ESPNET_SMOP_PYTHON": sys.executable,
            "PYTHONPATH": ":".join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }

    def run(self, size: int, first: int, last: int, *options: str) -> dict[str, float]:
        """Run stages; return seconds and processor seconds of all their processes."""
        words = ["./run.sh", "--size", str(size), "--ngpu", "0", "--num_threads", "1"]
        words += ["--stage", str(first), "--stop_stage", str(last), *options]
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            words, cwd=self.path, env=self.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            sys.exit(f"{' '.join(words)}\n{done.stdout[-3000:]}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"seconds": seconds, "cpu": cpu}

    def utterances(self, size: int, *sets: str) -> int:
        """Return how many utterances prepared sets have."""
        texts = (self.path / "dump" / str(size) / "raw" / name / "text" for name in sets)
        return sum(len(text.read_text().splitlines()) for text in texts)

    def prepare(self, size: int) -> dict[str, float]:
        """Make and prepare the corpus."""
        cost = self.run(size, 1, 4)
        return {"utterances": self.utterances(size, *SETS), **cost}

    def make_ready(self, size: int) -> None:
        """Do what training needs beside the corpus; base models are made once."""
        epochs = "--lm_epochs 1 --audio_epochs 1 --video_epochs 1"
        babble = ("--babble_utts", "8")  # the smallest corpus has no 30
        if size == self.smallest:
            self.run(size, 5, 6, "--base_models_opts", epochs, *babble)
        else:
            base = self.path / "exp" / str(size) / "base"
            base.parent.mkdir(parents=True, exist_ok=True)
            base.symlink_to(self.path / "exp" / str(self.smallest) / "base")
        self.run(size, 7, 10, *babble)

    def train(self, size: int) -> dict[str, float]:
        """Train for one epoch over the whole training set."""
        self.make_ready(size)
        changes = "--max_epoch 1 --num_iters_per_epoch none --model_conf ctc_warmup_steps=0"
        options = ["--avsr_args", changes, "--avsr_exp", f"exp/{size}/avsr_scale"]
        cost = self.run(size, 11, 11, *options)
        return {"utterances": self.utterances(size, "train"), **cost}

    def decode(self, size: int) -> dict[str, float]:
        """Decode the corpus by the model of the smallest one, so that texts are of one kind."""
        options = ["--avsr_exp", f"exp/{self.smallest}/avsr_scale"]
        options += ["--inference_tag", f"decode_{size}", "--snrs", "clean"]
        cost = self.run(size, 12, 12, *options, "--test_sets", " ".join(SETS))
        return {"utterances": self.utterances(size, *SETS), **cost}


def measure_corpus(args: argparse.Namespace, directory: Path) -> dict:
    """Run the stages for each size."""
    recipe = Recipe(directory, args.smallest)
    steps = {"prepare": recipe.prepare, "train": recipe.train, "decode": recipe.decode}
    found: dict[str, dict[int, dict]] = {part: {} for part in PARTS if part in args.parts}
    for size in (args.smallest, *sorted(args.sizes)):
        for part in found:
            found[part][size] = steps[part](size)
            print(f"# {part} {size}: {found[part][size]}", file=sys.stderr, flush=True)
    return {"parts": found, "slopes": {part: slope(beyond(rows)) for part, rows in found.items()}}


def beyond(rows: dict[int, dict]) -> dict[int, float]:
    """Return utterances → processor seconds, both beyond those of the smallest corpus."""
    first, *others = rows.values()
    out = {r["utterances"] - first["utterances"]: r["cpu"] - first["cpu"] for r in others}
    if min(out.values()) <= 0:
        raise ValueError("a larger corpus took no more time than the smallest: take larger sizes")
    return out


def report_corpus(result: dict) -> str:
    parts = result["parts"]
    titles = " | ".join(f"{part} ({PARTS[part]})" for part in parts)
    lines = [f"| size | {titles} |", "|---" * (len(parts) + 1) + "|"]
    for size in next(iter(parts.values())):
        cells = (
            f"{rows[size]['utterances']:,} utterances: {rows[size]['cpu']:.0f} CPU s, "
            f"{rows[size]['seconds']:.0f} s"
            for rows in parts.values()
        )
        lines.append(f"| {size:,} | {' | '.join(cells)} |")
    slopes = (f"**{value:.2f}**" for value in result["slopes"].values())
    return "\n".join([*lines, f"| slope | {' | '.join(slopes)} |"])


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    processes = kinds.add_parser("processes", help="1 and 2 processes")
    processes.add_argument("--utterances", type=int, default=160, help="of the training set")
    processes.add_argument("--batch_frames", type=int, default=700, help="a process and step")
    processes.add_argument("--rounds", type=int, default=3)
    for name, kind in (("directory", Path), ("output", Path), ("processes", int), ("rank", int)):
        processes.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    # What train.py asks of its arguments
    processes.set_defaults(
        tiny=True,
        device="cpu",
        num_workers=0,
        whisper="openai/whisper-base.en",
        llm="meta-llama/Llama-3.2-1B",
    )
    corpus = kinds.add_parser("corpus", help="the mini recipe's stages")
    corpus.add_argument("--sizes", type=int, nargs="+", default=[200, 600, 2000])
    corpus.add_argument("--smallest", type=int, default=40, help="stands for start-up")
    corpus.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    for one in (processes, corpus):
        one.add_argument("--json", type=Path, help="write all figures there")
    return parser


def main() -> None:
    args = get_parser().parse_args()
    if args.kind == "processes" and args.rank is not None:
        train_rank(args, args.directory, args.output)
        return
    with tempfile.TemporaryDirectory() as directory:
        if args.kind == "processes":
            result = measure_processes(args, Path(directory))
            print(report_processes(result))
        else:
            if "decode" in args.parts and "train" not in args.parts:
                sys.exit("scale.py: decode needs the model that train makes")
            if "train" in args.parts and "prepare" not in args.parts:
                sys.exit("scale.py: train needs the corpus that prepare makes")
            result = measure_corpus(args, Path(directory))
            print(report_corpus(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
