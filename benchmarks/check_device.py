#!/usr/bin/env python3
"""Compare a device's losses, gradients, features and texts with the CPU's.

    python benchmarks/check_device.py --device cuda

Small models with random weights, of every routing, in float32 on the CPU and on the device, and in
bfloat16 on the device. The golden tests run first: they compare the CPU with the public code.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import timing
import torch
from training_data import random_bases, random_batch, task_arguments

from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.tasks.avsr import AVSRTask

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = [
    "test/decoder/test_golden.py",
    "test/frontend/test_avhubert.py",
    "test/projector/test_smop.py",
]
ROUTINGS = ("jejr", "jedr", "dedr")
LIMITS = {"float32": 1e-3, "bfloat16": 5e-2}
"""Largest relative difference to the CPU's float32 that passes."""


def build(task: argparse.Namespace, routing: str, dtype: str) -> ESPnetAVSRModel:
    """Build the same model in each call, with adapters, and frozen weights in a dtype."""
    task.projector_conf = {**task.projector_conf, "routing": routing}
    for conf in (task.audio_frontend_conf, task.video_frontend_conf, task.decoder_conf):
        conf["dtype"] = dtype
    torch.manual_seed(0)
    model = AVSRTask.build_model(task).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def compute(model: ESPnetAVSRModel, batch: dict, device: str, autocast: bool) -> dict:
    """Return the compared values, on the CPU: loss, gradients, tokens and texts."""
    model = model.to(device)
    batch = {name: value.to(device) for name, value in batch.items()}
    with torch.autocast(device, torch.bfloat16, enabled=autocast):
        loss, *_ = model(**batch)
    loss.backward()
    gradients = [p.grad.float().flatten() for p in model.parameters() if p.grad is not None]
    with torch.no_grad():
        media = model.eval().project(*(batch[name] for name in list(batch)[:4]))
        beams = model.decoder.generate(media.tokens, media.lengths, beam_size=4, max_new_tokens=8)
    return {
        "loss": loss.detach().float().cpu(),
        "gradients": torch.cat(gradients).cpu(),
        "tokens": torch.cat([t.float().flatten() for t in media.tokens.values()]).cpu(),
        "texts": [nbest[0].ids for nbest in beams],
    }


def differences(found: dict, expected: dict) -> dict[str, float]:
    """Return the relative differences, and the share of texts that differ."""
    out = {
        name: float((found[name] - expected[name]).norm() / expected[name].norm())
        for name in ("loss", "gradients", "tokens")
    }
    pairs = zip(found["texts"], expected["texts"], strict=True)
    out["texts"] = sum(a != b for a, b in pairs) / len(expected["texts"])
    return out


def golden() -> bool:
    """Run the golden tests; print their last line."""
    words = [sys.executable, "-m", "pytest", "-q", "-k", "parity or golden", *GOLDEN]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    print(f"golden numbers: {done.stdout.strip().splitlines()[-1]}\n", flush=True)
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--routings", nargs="+", choices=ROUTINGS, default=list(ROUTINGS))
    parser.add_argument("--no_golden", action="store_true", help="leave out the golden tests")
    timing.add_options(parser)
    args = timing.parsed(parser)
    right = args.no_golden or golden()
    bases = argparse.Namespace(
        tiny=True,
        device="cpu",
        num_workers=0,
        whisper="openai/whisper-base.en",
        llm="meta-llama/Llama-3.2-1B",
    )
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(1)
    batch = random_batch(3, 1.2)
    for name in ("speech_lengths", "video_lengths", "text_lengths"):  # others are padded
        batch[name][1:] = batch[name][1:] // torch.tensor([2, 4])
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        task = task_arguments(bases, random_bases(bases, Path(directory)), Path(directory))
        task.ngpu = int(args.device == "cuda")
        for routing in args.routings:
            if rows and args.deadline.passed():
                break
            expected = compute(build(task, routing, "float32"), batch, "cpu", False)
            for dtype, limit in LIMITS.items():
                low = dtype == "bfloat16"
                found = compute(build(task, routing, dtype), batch, args.device, low)
                row = differences(found, expected)
                # In random models, experts and texts are chosen among near ties, which bfloat16 may
                # decide otherwise.
                exact = low or (row["tokens"] < limit and not row["texts"])
                row["right"] = row["loss"] < limit and exact
                rows.append({"routing": routing, "dtype": dtype, **row})
    cells = [
        [
            r["routing"], r["dtype"], *(f"{r[k]:.1e}" for k in ("loss", "gradients", "tokens")),
            f"{100 * r['texts']:.0f} %", "yes" if r["right"] else "**no**",
        ]
        for r in rows
    ]  # fmt: skip
    header = ["routing", args.device, "loss", "gradients", "tokens", "texts differ", "right"]
    print(timing.markdown(header, cells))
    timing.save(args, {"rows": rows})
    if not right or not all(r["right"] for r in rows):
        sys.exit(f"{args.device} computes other results than the CPU, or the golden tests fail")


if __name__ == "__main__":
    main()
