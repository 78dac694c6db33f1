#!/usr/bin/env python3
"""Speed of the frontends, as ratios of interleaved runs on one thread (CPU seconds).

    python benchmarks/frontend.py whisper     # `longest` against `30s`
    python benchmarks/frontend.py avhubert    # against torch.nn.TransformerEncoderLayer
    python benchmarks/frontend.py tiny        # training a small AV-HuBERT from scratch

Durations follow LRS3: log-normal, test with mean 2.3 s (sigma 0.5, clipped to 0.6 … 6.2 s), train
with mean 10 s (sigma 0.6, clipped to 1 … 24 s). Batches are of similar lengths, as ESPnet's
samplers make them, with at most 24 s of audio.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable

import torch
from torch import nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from espnet_smop.frontend.avhubert import AVHuBERTConfig, AVHuBERTModel, Encoder
from espnet_smop.frontend.resnet import VideoResNet
from espnet_smop.frontend.whisper import WhisperFrontend
from espnet_smop.modality import SAMPLE_RATE

_DISTRIBUTIONS = {"test": (2.3, 0.5, 0.6, 6.2), "train": (10.0, 0.6, 1.0, 24.0)}


def interleaved(runs: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Return each run's least time in CPU seconds; the runs take turns."""
    times = {name: math.inf for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            run()
            times[name] = min(times[name], time.process_time() - start)
    return times


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


def whisper(args: argparse.Namespace) -> None:
    """Measure utterances per second of `longest` and `30s`, with the sizes of Whisper base."""
    config = WhisperConfig(
        d_model=512, encoder_layers=6, encoder_attention_heads=8, encoder_ffn_dim=2048
    )
    with tempfile.TemporaryDirectory() as directory:
        WhisperEncoder(config).save_pretrained(directory)
        frontends = {
            p: WhisperFrontend(directory, padding=p, dtype="float32") for p in ("longest", "30s")
        }
    for name in _DISTRIBUTIONS:
        # A stratified sample, so that few utterances stand for the distribution.
        every = durations(name, args.utterances * 20)[10::20]
        inputs = []
        for group in batches(every):
            samples = torch.tensor([int(d * SAMPLE_RATE) for d in group])
            inputs.append((torch.randn(len(group), int(samples.max())), samples))

        def run(padding: str, inputs=inputs) -> None:
            for speech, samples in inputs:
                frontends[padding](speech, samples)

        times = interleaved({p: lambda p=p, run=run: run(p) for p in frontends}, args.repeats)
        rates = {p: len(every) / t for p, t in times.items()}
        print(
            f"whisper base, {name} ({len(every)} of mean {sum(every) / len(every):.1f} s): "
            f"longest {rates['longest']:.2f}/s, 30s {rates['30s']:.2f}/s, "
            f"ratio {rates['longest'] / rates['30s']:.1f}"
        )


def avhubert(args: argparse.Namespace) -> None:
    """Measure the transformer against torch's own layers, and the ResNet's memory layouts."""
    config = AVHuBERTConfig(encoder_layers=4)
    encoder = Encoder(config).eval()
    torch.backends.mha.set_fastpath_enabled(False)
    layer = nn.TransformerEncoderLayer(
        config.encoder_embed_dim,
        config.encoder_attention_heads,
        config.encoder_ffn_embed_dim,
        activation="gelu",
        batch_first=True,
        norm_first=True,
    )
    stack = nn.TransformerEncoder(
        layer, 4, norm=nn.LayerNorm(config.encoder_embed_dim), enable_nested_tensor=False
    ).eval()
    x = torch.randn(4, 60, config.encoder_embed_dim)
    for name, lengths in (("full", [60, 60, 60, 60]), ("padded", [60, 50, 40, 30])):
        inside = torch.arange(60) < torch.tensor(lengths)[:, None]
        mask = None if bool(inside.all()) else inside[:, None, None]
        padded = None if bool(inside.all()) else ~inside

        @torch.no_grad()
        def ours(mask=mask) -> None:
            y = x
            for block in encoder.layers:
                y = block(y, mask)
            encoder.layer_norm(y)

        @torch.no_grad()
        def theirs(padded=padded) -> None:
            stack(x, src_key_padding_mask=padded)

        times = interleaved({"ours": ours, "torch": theirs}, args.repeats)
        print(
            f"4 layers of AV-HuBERT LARGE, {name} batch of 4 x 60: {times['ours'] * 1e3:.0f} ms, "
            f"TransformerEncoderLayer {times['torch'] * 1e3:.0f} ms, "
            f"speed ratio {times['torch'] / times['ours']:.2f}"
        )
    resnet = VideoResNet(
        stem_channels=64,
        stem_stride=2,
        channels=[64, 128, 256, 512],
        blocks=[2, 2, 2, 2],
        relu_type="prelu",
    ).eval()
    frames = torch.randn(24, 64, 44, 44)
    layouts = {
        "channels-last": frames.contiguous(memory_format=torch.channels_last),
        "channels-first": frames,
    }

    @torch.no_grad()
    def trunk(name: str) -> None:
        resnet.trunk(resnet.frontend3D[1:](layouts[name]))

    times = interleaved({n: lambda n=n: trunk(n) for n in layouts}, args.repeats)
    for name, seconds in times.items():
        print(f"ResNet-18 trunk, {name}: {len(frames) / seconds:.0f} frames/s")


def tiny(args: argparse.Namespace) -> None:
    """Measure forward and backward of an AV-HuBERT small enough to train on a CPU."""
    model = AVHuBERTModel(
        AVHuBERTConfig(
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
    )
    video, lengths = torch.randn(8, 48, 88, 88), torch.full((8,), 48)

    def train() -> None:
        model.train()(video=video, lengths=lengths)[-1].square().mean().backward()
        model.zero_grad()

    @torch.no_grad()
    def infer() -> None:
        model.eval()(video=video, lengths=lengths)

    for name, seconds in interleaved({"train": train, "infer": infer}, args.repeats).items():
        print(f"tiny AV-HuBERT, {name}: {8 * 48 / seconds:.0f} frames/s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["whisper", "avhubert", "tiny"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--utterances", type=int, default=20)
    torch.set_num_threads(1)
    args = parser.parse_args()
    {"whisper": whisper, "avhubert": avhubert, "tiny": tiny}[args.part](args)


if __name__ == "__main__":
    main()
