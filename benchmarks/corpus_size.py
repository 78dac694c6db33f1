#!/usr/bin/env python3
"""Growth of every stage's cost with the corpus.

    python benchmarks/corpus_size.py [--json OUT]   # 200, 600 and 2,000 utterances

Runs the mini recipe in a temporary copy: preparation (stages 1 to 4), one epoch of training over
the whole training set, and decoding of every utterance of the corpus with one model. A cost is the
processor time of all processes. The slope is in log-log scale, over the utterances and costs beyond
those of the smallest corpus, which are nearly all start-up: 1 is linear.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import timing

ROOT = Path(__file__).resolve().parents[1]
PARTS = {"prepare": "stages 1–4", "train": "one epoch", "decode": "all utterances"}
SETS = ("train", "valid", "test")


class Recipe:
    """The mini recipe in a directory of its own.

    Args:
        directory: parent of ``egs2``.
        smallest: size whose trained model decodes all others.
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
        """Return the number of utterances in prepared sets."""
        texts = (self.path / "dump" / str(size) / "raw" / name / "text" for name in sets)
        return sum(len(text.read_text().splitlines()) for text in texts)

    def prepare(self, size: int) -> dict[str, float]:
        """Make and prepare the corpus."""
        cost = self.run(size, 1, 4)
        return {"utterances": self.utterances(size, *SETS), **cost}

    def make_ready(self, size: int) -> None:
        """Run the other stages that training needs."""
        self.run(size, 5, 10, "--babble_utts", "8")  # the smallest corpus has no 30

    def train(self, size: int) -> dict[str, float]:
        """Train for one epoch over the whole training set."""
        self.make_ready(size)
        changes = "--max_epoch 1 --num_iters_per_epoch none --model_conf ctc_warmup_steps=0"
        options = ["--avsr_args", changes, "--avsr_exp", f"exp/{size}/avsr_scale"]
        cost = self.run(size, 11, 11, *options)
        return {"utterances": self.utterances(size, "train"), **cost}

    def decode(self, size: int) -> dict[str, float]:
        """Decode with the smallest corpus's model, so that texts are of one kind."""
        options = ["--avsr_exp", f"exp/{self.smallest}/avsr_scale"]
        options += ["--inference_tag", f"decode_{size}", "--snrs", "clean"]
        cost = self.run(size, 12, 12, *options, "--test_sets", " ".join(SETS))
        return {"utterances": self.utterances(size, *SETS), **cost}


def measure(args: argparse.Namespace, directory: Path) -> dict:
    """Run the stages for each size."""
    recipe = Recipe(directory, args.smallest)
    steps = {"prepare": recipe.prepare, "train": recipe.train, "decode": recipe.decode}
    found: dict[str, dict[int, dict]] = {part: {} for part in PARTS if part in args.parts}
    for size in (args.smallest, *sorted(args.sizes)):
        for part in found:
            found[part][size] = steps[part](size)
            print(f"# {part} {size}: {found[part][size]}", file=sys.stderr, flush=True)
    return {
        "parts": found,
        "slopes": {part: timing.slope(beyond(rows)) for part, rows in found.items()},
    }


def beyond(rows: dict[int, dict]) -> dict[int, float]:
    """Return utterances → processor seconds, both beyond those of the smallest corpus."""
    first, *others = rows.values()
    out = {r["utterances"] - first["utterances"]: r["cpu"] - first["cpu"] for r in others}
    if min(out.values()) <= 0:
        raise ValueError("a larger corpus took no more time than the smallest: take larger sizes")
    return out


def report(result: dict) -> str:
    parts = result["parts"]
    rows = [
        [
            f"{size:,}",
            *(
                f"{found[size]['utterances']:,} utterances: {found[size]['cpu']:.0f} CPU s, "
                f"{found[size]['seconds']:.0f} s"
                for found in parts.values()
            ),
        ]
        for size in next(iter(parts.values()))
    ]
    rows.append(["slope", *(f"**{value:.2f}**" for value in result["slopes"].values())])
    return timing.markdown(["size", *(f"{part} ({PARTS[part]})" for part in parts)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 600, 2000])
    parser.add_argument("--smallest", type=int, default=40, help="represents start-up")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--json", type=Path, help="write all figures there")
    args = parser.parse_args()
    if "decode" in args.parts and "train" not in args.parts:
        parser.error("--parts decode needs the model that train makes")
    if "train" in args.parts and "prepare" not in args.parts:
        parser.error("--parts train needs the corpus that prepare makes")
    with tempfile.TemporaryDirectory() as directory:
        result = measure(args, Path(directory))
    print(report(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
