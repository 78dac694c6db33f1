#!/usr/bin/env python3
"""Start-up time of training, from the command line to planned batches, over corpus size.

    python benchmarks/startup.py                          # 15,000, 50,000 and 150,000 utterances
    python benchmarks/startup.py --llm DIR                # texts counted by a real LLM's tokenizer

Shape files, scp files and texts are generated; no media is read, as in a real start. Measured are
loading the tokenizer, counting texts, making batches (`batch_type: tokens`), opening the dataset
and drawing the first epoch's order; without `--llm`, a token is a byte. The model has no weights.
Each size runs in a separate process: processor seconds, peak memory, and how much it exceeds that
of a process with 12 utterances. The slope is in log-log scale, of the seconds beyond that process:
1 is linear.
"""

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import timing

SIZES = (15000, 50000, 150000)
WORDS = ("the", "of", "people", "this", "because", "so", "have", "what", "with", "different")


def write_lists(directory: Path, count: int) -> None:
    """Write a data directory and its shape file, with LRS3's utterance lengths."""
    rng = random.Random(0)
    names = ("wav.scp", "video.scp", "text", "duration_shape")
    files = {name: (directory / name).open("w") for name in names}
    for i in range(count):
        seconds = min(24.0, max(0.6, rng.lognormvariate(math.log(9), 0.75)))
        key = f"speaker{i // 10:06d}_{i:08d}"
        path = f"dump/raw/train/data/{i // 1000:04d}/{key}"
        words = " ".join(rng.choice(WORDS) for _ in range(max(1, int(3 * seconds))))
        for name, value in zip(
            names, (f"{path}.flac", f"{path}.mkv", words, int(seconds * 25)), strict=True
        ):
            files[name].write(f"{key} {value}\n")
    for file in files.values():
        file.close()


def start(directory: Path, llm: str) -> None:
    """Start a training up to planning its batches; print the cost."""
    import torch
    from espnet2.train.distributed_utils import DistributedOption

    from espnet_smop.skeleton import skeleton
    from espnet_smop.tasks.avsr import AVSRTask

    words = ["--batch_type", "tokens", "--batch_bins", "12000", "--use_preprocessor", "true"]
    words += ["--train_shape_file", f"{directory}/duration_shape"]
    for part, base in (
        ("audio_frontend", "openai/whisper-tiny"),
        ("video_frontend", "avhubert_large"),
        ("decoder", llm),
    ):
        words += [f"--{part}_conf", f"model={skeleton(base, directory)}"]
    for data in ("wav.scp,speech,sound", "video.scp,video,video", "text,text,text"):
        words += ["--train_data_path_and_name_and_type", f"{directory}/{data}"]
    args = AVSRTask.get_parser().parse_args([*words, "--output_dir", f"{directory}/exp"])
    args.ngpu, args.num_iters_per_epoch = 0, None
    with torch.device("meta"):
        model = AVSRTask.build_model(args)  # kept: it says how many tokens an utterance has
    begin = time.process_time()
    option = DistributedOption(distributed=False)
    factory = AVSRTask.build_iter_factory(args, option, mode="train")
    factory.build_iter(1)
    took = time.process_time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    del model
    print(json.dumps({"seconds": took, "mib": peak, "batches": len(factory.sampler)}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--utterances", type=int, nargs="+", default=SIZES)
    parser.add_argument("--llm", default="meta-llama/Llama-3.2-1B", help="LLM, or its directory")
    parser.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only is not None:
        start(args.only, args.llm)
        return
    found = {}
    for count in (12, *args.utterances):
        with tempfile.TemporaryDirectory() as directory:
            write_lists(Path(directory), count)
            command = [sys.executable, __file__, "--only", directory, "--llm", args.llm]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[count] = json.loads(done.stdout.splitlines()[-1])
    empty = found.pop(12)
    rows = [
        [
            f"{count:,}", f"{row['batches']:,}", f"{row['seconds']:.1f}", f"{row['mib']:.0f}",
            f"{row['mib'] - empty['mib']:.0f}",
        ]
        for count, row in found.items()
    ]  # fmt: skip
    header = ["utterances", "batches", "CPU seconds", "MiB", "MiB beyond 12 utterances"]
    print(timing.markdown(header, rows))
    few, many = found[min(found)], found[max(found)]
    growth = timing.slope({n: row["seconds"] - empty["seconds"] for n, row in found.items()})
    print(f"slope of seconds: {growth:.2f}")
    bytes_each = (many["mib"] - few["mib"]) * 2**20 / (max(found) - min(found))
    print(f"memory of a further utterance: {bytes_each:.0f} bytes")


if __name__ == "__main__":
    main()
