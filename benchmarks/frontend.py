#!/usr/bin/env python3
"""Speed of the frontends: seconds of speech per second, in interleaved runs.

    python benchmarks/frontend.py whisper     # Base: `longest` against `30s`
    python benchmarks/frontend.py avhubert    # LARGE: batches of equal and of mixed lengths
    python benchmarks/frontend.py tiny        # training a small AV-HuBERT from scratch, frames/s
    python benchmarks/frontend.py whisper avhubert --device cuda --compile default reduce-overhead

On a CPU times are processor times, of one thread with ``OMP_NUM_THREADS=1``. Durations for Whisper
follow LRS3: log-normal, test with mean 2.3 s (sigma 0.5, clipped to 0.6 … 6.2 s), train with mean
10 s (sigma 0.6, clipped to 1 … 24 s). Its batches are of similar lengths, as ESPnet's samplers make
them, with at most 24 s of audio. `reduce-overhead` is torch.compile with CUDA graphs.
"""

import argparse
import copy
import math
import tempfile
from collections.abc import Callable
from functools import partial
from unittest import mock

import timing
import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from espnet_smop.base_model import freeze
from espnet_smop.compiled import compile_layers
from espnet_smop.frontend.avhubert import AVHuBERTConfig, AVHuBERTModel
from espnet_smop.frontend.whisper import WhisperFrontend
from espnet_smop.modality import FRAME_RATE, SAMPLE_RATE

_DISTRIBUTIONS = {"test": (2.3, 0.5, 0.6, 6.2), "train": (10.0, 0.6, 1.0, 24.0)}
_TINY = AVHuBERTConfig(
    encoder_layers=2,
    encoder_embed_dim=128,
    encoder_ffn_embed_dim=512,
    encoder_attention_heads=4,
    conv_pos=32,
    conv_pos_groups=16,
    resnet_relu_type="relu",
    resnet_stem_channels=16,
    resnet_stem_stride=4,
    resnet_channels=[16, 32, 48, 64],
    resnet_blocks=[1, 1, 1, 1],
    attention_dropout=0.0,
)
Row = dict[str, str | float]


def durations(name: str, count: int) -> list[float]:
    """Draw durations in seconds, sorted."""
    mean, sigma, low, high = _DISTRIBUTIONS[name]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(count, generator=generator) * sigma + math.log(mean) - sigma**2 / 2
    return sorted(drawn.exp().clamp(low, high).tolist())


def batches(lengths: list[float], seconds: float = 24.0) -> list[list[float]]:
    """Group sorted durations into batches of at most ``seconds``, padding included."""
    groups: list[list[float]] = [[]]
    for length in lengths:
        if groups[-1] and length * (len(groups[-1]) + 1) > seconds:
            groups.append([])
        groups[-1].append(length)
    return groups


def rows(
    args: argparse.Namespace, runs: dict[str, Callable[[], object]], speech: dict[str, float]
) -> list[Row]:
    """Time runs; ``speech`` is each run's speech in seconds."""
    times = timing.interleaved(runs, args.repeats, args.device, args.deadline)
    return [
        {"run": name, "seconds": t, "speech_per_second": speech[name] / t}
        for name, t in times.items()
    ]


def dtype_of(args: argparse.Namespace) -> torch.dtype:
    return torch.bfloat16 if args.device == "cuda" else torch.float32


def whisper(args: argparse.Namespace) -> list[Row]:
    """Measure `longest` and `30s`, with the sizes of Whisper Base."""
    width, layers = (128, 2) if args.tiny else (512, 6)
    config = WhisperConfig(
        d_model=width, encoder_layers=layers, encoder_attention_heads=8, encoder_ffn_dim=4 * width
    )
    dtype = str(dtype_of(args)).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as directory:
        WhisperEncoder(config).save_pretrained(directory)
        frontends = {
            p: WhisperFrontend(directory, padding=p, dtype=dtype).to(args.device).eval()
            for p in ("longest", "30s")
        }
    runs, speech = {}, {}
    for name in _DISTRIBUTIONS:
        # A stratified sample, so that few utterances represent the distribution.
        every = durations(name, args.utterances * 20)[10::20]
        inputs = []
        for group in batches(every):
            samples = torch.tensor([int(d * SAMPLE_RATE) for d in group], device=args.device)
            sound = torch.randn(len(group), int(samples.max()), device=args.device)
            inputs.append((sound, samples))

        def run(frontend: WhisperFrontend, inputs=inputs) -> None:
            for sound, samples in inputs:
                frontend(sound, samples)

        for padding, frontend in frontends.items():
            label = f"Whisper, {padding}, {name} set of mean {sum(every) / len(every):.1f} s"
            runs[label], speech[label] = partial(run, frontend), sum(every)
    return rows(args, runs, speech)


def compiled(model: AVHuBERTModel, mode: str) -> AVHuBERTModel:
    """Return a copy of a model with compiled layers."""
    model = copy.deepcopy(model)
    with mock.patch("torch.compile", partial(torch.compile, mode=mode)):
        compile_layers(model.encoder.layers, when=lambda: True)
    return model


def avhubert(args: argparse.Namespace) -> list[Row]:
    """Measure batches without padding, and with a third of it."""
    torch.manual_seed(0)
    with torch.device(args.device):
        model = AVHuBERTModel(_TINY if args.tiny else AVHuBERTConfig())
    model = freeze(model.to(dtype_of(args)).eval())
    models = {"": model, **{f", compiled ({m})": compiled(model, m) for m in args.compile}}
    times = 8 if args.device == "cuda" else 1
    runs, speech = {}, {}
    for kind, frames in (("equal", [60] * 4), ("mixed", [90, 62, 49, 39])):
        lengths = torch.tensor(frames * times, device=args.device)
        video = torch.randn(len(lengths), max(frames), 88, 88, device=args.device)
        for suffix, one in models.items():
            label = f"AV-HuBERT, {kind} lengths{suffix}"
            runs[label] = torch.no_grad()(partial(one, video=video, lengths=lengths))
            speech[label] = times * sum(frames) / FRAME_RATE
    return rows(args, runs, speech)


def tiny(args: argparse.Namespace) -> list[Row]:
    """Measure forward and backward of an AV-HuBERT small enough to train on a CPU."""
    model = AVHuBERTModel(_TINY).to(args.device)
    video = torch.randn(8, 48, 88, 88, device=args.device)
    lengths = torch.full((8,), 48, device=args.device)

    def train() -> None:
        model.train()(video=video, lengths=lengths)[-1].square().mean().backward()
        model.zero_grad()

    @torch.no_grad()
    def infer() -> None:
        model.eval()(video=video, lengths=lengths)

    runs = {"small AV-HuBERT, a training step": train, "small AV-HuBERT, inference": infer}
    return rows(args, runs, dict.fromkeys(runs, 8 * 48 / FRAME_RATE))


PARTS = {"whisper": whisper, "avhubert": avhubert, "tiny": tiny}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", choices=PARTS, nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--utterances", type=int, default=20, help="of each set for Whisper")
    parser.add_argument("--tiny", action="store_true", help="small models")
    parser.add_argument("--compile", nargs="+", default=[], help="modes of torch.compile")
    timing.add_options(parser)
    args = timing.parsed(parser)
    found = [row for part in args.parts for row in PARTS[part](args)]
    cells = [[r["run"], f"{r['seconds']:.3f}", f"{r['speech_per_second']:.1f}"] for r in found]
    print(timing.markdown(["", "seconds", "speech s/s"], cells))
    timing.save(args, {"rows": found})


if __name__ == "__main__":
    main()
