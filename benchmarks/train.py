#!/usr/bin/env python3
"""Training at the paper's sizes: throughput, memory, share of parts, effect of choices.

    python benchmarks/train.py --tiny                          # CPU, small models, minutes
    python benchmarks/train.py --device cuda --json train.json # Whisper Base, Llama 3.2-1B
    python benchmarks/train.py --device cuda --whisper openai/whisper-medium.en \
        --llm meta-llama/Llama-3.2-3B --effects

Models have the published sizes and random weights. Clips are written to disk with lengths like
LRS3's, and read through the recipe's dataset and preprocessor. `ours` is the recipe's setting;
`reference` makes the choices of the public Llama-AVSR code in the same model (public_choices.py):
audio padded to 30 s, its spectrogram computed by NumPy, experts one after the other, no masks for
padding, encoders in training mode with autograd on, logits at all positions, batches by the sum of
frames. The settings alternate in one process. On a CPU times are processor times.

`--effects` also runs `ours` with one choice changed at a time. Peak memory is that of the same
batch in all settings.
"""

import argparse
import contextlib
import statistics
import tempfile
from pathlib import Path

import numpy as np
import timing
import torch
from espnet2.iterators.sequence_iter_factory import SequenceIterFactory
from espnet2.train.distributed_utils import DistributedOption
from public_choices import OPTIONS, PUBLIC, nothing, public_batches
from training_data import (
    PROMPT,
    RATES,
    lrs3_like,
    padding,
    random_bases,
    task_arguments,
    write_corpus,
)
from training_report import report
from training_steps import Steps

from espnet_smop.corpus.shapes import make_shapes
from espnet_smop.experiments.memory import activation_bytes
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.train.token_batches import Counts, TokenBatchSampler


def measure(args: argparse.Namespace, directory: Path) -> dict:
    frames, text = lrs3_like(args.corpus)
    names = [f"u{i:06d}" for i in range(args.corpus)]
    counts = Counts.of(
        dict(zip(names, frames.tolist(), strict=True)),
        dict(zip(names, text.tolist(), strict=True)),
        prefix=lambda n: 1 + len(PROMPT) + 4 - (-2 * n // RATES["audio"]) - (-n // RATES["video"]),
    )
    limits = {"tokens": 2 * args.batch_frames, "frames": args.batch_frames}
    plans = {
        "ours": TokenBatchSampler(counts, limits).batches,
        "reference": public_batches(frames, args.batch_frames),
    }
    waste = {
        name: {"frames": padding(b, counts.frames), "tokens": padding(b, counts.tokens)}
        for name, b in plans.items()
    }
    # Batches evenly spaced from the shortest to the longest utterances represent all.
    keys, chosen = {}, {}
    for name, plan in plans.items():
        places = np.linspace(0, len(plan) - 1, args.batches + 2)[1:-1].round().astype(int)
        chosen[name] = [plan[i] for i in places]
        keys[name] = [tuple(names[i] for i in batch) for batch in chosen[name]]
    used = sorted({i for batches in chosen.values() for batch in batches for i in batch})
    write_corpus(
        directory / "dump",
        {names[i]: int(frames[i]) for i in used},
        {names[i]: int(text[i]) for i in used},
    )
    make_shapes(directory / "dump", directory / "stats")

    task = task_arguments(args, random_bases(args, directory), directory)
    torch.manual_seed(0)
    model = AVSRTask.build_model(task).to(args.device).train()
    options = AVSRTask.build_iter_options(task, DistributedOption(distributed=False), "train")
    dataset = AVSRTask.build_dataset(task, options)

    def factory(keys, num_workers=args.num_workers):
        return SequenceIterFactory(
            dataset=dataset,
            batches=keys,
            num_workers=num_workers,
            collate_fn=options.collate_fn,
            pin_memory=args.device == "cuda",
        ).build_iter(1)

    steps = Steps(args, model, factory)
    settings = {"ours": [nothing], "reference": list(PUBLIC.values())}
    choices = {**PUBLIC, **OPTIONS}
    settings |= {name: [choices[name]] for name in (choices if args.effects else args.compare)}
    settings = {n: c for n, c in settings.items() if n not in args.leave_out}
    times = {name: [] for name in settings}
    memory, split = {}, {}
    middle = len(keys["ours"]) // 2
    (_, same_batch), same = next(iter(factory(keys["ours"][middle:], 0))), chosen["ours"][middle]
    computed = activation_bytes(
        model,
        positions=len(same) * int(counts.tokens[same].max()),
        text=int((text[same] + 1).sum()),
        frames=len(same) * int(frames[same].max()),
        recompute=False,
    )
    for round_ in range(args.rounds + 1):  # the first warms up, and measures all but time
        if round_ > 1 and args.deadline.passed():
            break
        for name, changes in settings.items():
            fused = name not in ("reference", "AdamW not fused")
            batches = keys["reference" if name == "reference" else "ours"]
            with contextlib.ExitStack() as stack:
                for change in changes:
                    stack.enter_context(change(model))
                if round_ == 0:
                    memory[name] = steps.peak_memory(same_batch, fused=fused)
                    if name in ("ours", "reference"):
                        split[name] = steps.split(batches, fused=fused)
                else:
                    times[name].append(steps.run(batches, fused=fused))
    flops = steps.flops(keys["ours"])
    speech = {n: sum(int(frames[b].sum()) for b in bs) / 25 for n, bs in chosen.items()}
    # Operations per second of speech in our setting, used for all.
    per_second, peak = flops / speech["ours"], steps.matrix_peak()
    rows = {}
    for name, seconds in times.items():
        plan = "reference" if name == "reference" else "ours"
        one = statistics.median(seconds)
        rate = speech[plan] / one
        rows[name] = {
            "utterances_per_second": sum(map(len, chosen[plan])) / one,
            "speech_per_second": rate,
            "tokens_per_second": sum(int(counts.tokens[b].sum()) for b in chosen[plan]) / one,
            "speed": statistics.median(
                (o / t) * (speech[plan] / speech["ours"])
                for t, o in zip(seconds, times["ours"], strict=True)
            ),
            "peak_mib": memory[name],
            "memory": memory[name] / memory["ours"],
            "share_of_matrix_peak": rate * per_second / peak,
        }
    growth = {"growth": steps.growth([2.0, 4.0, 8.0, 24.0])} if args.growth else {}
    return {
        **growth,
        "rows": rows,
        "computed_mib": computed / 2**20,
        "split": split,
        "waste": waste,
        "matrix_peak": peak,
        "flops_per_second_of_speech": per_second,
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="small models, for a CPU")
    parser.add_argument("--whisper", default="openai/whisper-base.en")
    parser.add_argument("--llm", default="meta-llama/Llama-3.2-1B")
    parser.add_argument("--effects", action="store_true", help="also change one choice at a time")
    parser.add_argument("--growth", action="store_true", help="also how cost grows with length")
    parser.add_argument("--compare", nargs="+", default=[], help="some of these choices")
    parser.add_argument("--leave_out", nargs="+", default=[], help="settings not to run")
    parser.add_argument("--batch_frames", type=int, help="700 on the CPU, 4,000 on a GPU")
    parser.add_argument("--batches", type=int, help="of each setting: 6 on the CPU, 24 on a GPU")
    parser.add_argument("--corpus", type=int, default=20000, help="utterances to plan batches of")
    parser.add_argument("--rounds", type=int, help="2 on the CPU, 3 on a GPU")
    parser.add_argument("--num_workers", type=int, help="0 on the CPU, 8 on a GPU")
    timing.add_options(parser)
    args = timing.parsed(parser)
    cuda = args.device == "cuda"
    args.batch_frames = args.batch_frames or (4000 if cuda else 700)
    args.batches = args.batches or (24 if cuda else 6)
    args.rounds = args.rounds or (3 if cuda else 2)
    args.num_workers = (8 if cuda else 0) if args.num_workers is None else args.num_workers

    with tempfile.TemporaryDirectory() as directory:
        result = measure(args, Path(directory))
    device = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    sizes = "small models" if args.tiny else f"{args.whisper}, AV-HuBERT LARGE, {args.llm}"
    print(
        f"{sizes}, {result['parameters'] / 1e6:.0f} M parameters, {result['trained'] / 1e6:.1f} M "
        f"trained; {device}, {'bf16' if cuda else 'fp32'}, torch {torch.__version__}; batches of "
        f"{args.batch_frames} frames; matrix peak {result['matrix_peak'] / 1e12:.2f} TFLOP/s\n"
    )
    print(report(result))
    timing.save(args, {"device": device, **result})


if __name__ == "__main__":
    main()
