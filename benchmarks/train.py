#!/usr/bin/env python3
"""Training at the paper's sizes: throughput, memory, where the time goes, what each choice does.

    python benchmarks/train.py --tiny                          # CPU, small models, minutes
    python benchmarks/train.py --device cuda --json train.json # Whisper Base, Llama 3.2-1B
    python benchmarks/train.py --device cuda --whisper openai/whisper-medium.en \
        --llm meta-llama/Llama-3.2-3B --effects

Models have the published sizes and random weights. Clips are written to disk with lengths like
LRS3's, and read through the recipe's dataset and preprocessor. `ours` is the recipe's setting;
`reference` makes the choices of the public Llama-AVSR code in the same model: audio padded to
30 s, its spectrogram computed by NumPy, experts one after the other over one-hot masks, no masks
for padding, encoders in training mode with autograd on, logits at all positions, batches by the sum
of frames. All settings take turns in one process. On a CPU times are processor times.

`--effects` also runs `ours` with one choice changed at a time. Peak memory is that of the same
batch in all settings.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
import yaml
from espnet2.iterators.sequence_iter_factory import SequenceIterFactory
from espnet2.train.distributed_utils import DistributedOption
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from espnet_smop.checkpoint.llama_smop.frontends import (
    UnmaskedAVHuBERTFrontend,
    UnmaskedWhisperFrontend,
)
from espnet_smop.compiled import compile_layers
from espnet_smop.corpus.shapes import make_shapes
from espnet_smop.decoder.abs_decoder import DecoderOutput
from espnet_smop.decoder.llm import _checkpoint_layers, _layers
from espnet_smop.fileio.video import write_video
from espnet_smop.frontend.avhubert import AVHuBERTConfig, AVHuBERTModel
from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.projector.dispatch import mix
from espnet_smop.skeleton import published_config, skeleton
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.train.token_batches import Counts, TokenBatchSampler

RATES = {"audio": 3, "video": 3}
PROMPT = "To text:"  # as many bytes as the paper's prompt has tokens of Llama
TINY = {
    "whisper": WhisperConfig(
        d_model=128,
        encoder_layers=4,
        encoder_attention_heads=4,
        encoder_ffn_dim=512,
    ),
    "avhubert": AVHuBERTConfig(
        encoder_layers=4,
        encoder_embed_dim=128,
        encoder_ffn_embed_dim=512,
        encoder_attention_heads=4,
        conv_pos=32,
        conv_pos_groups=16,
        resnet_stem_channels=8,
        resnet_stem_stride=4,
        resnet_channels=[8, 16, 24, 32],
        resnet_blocks=[1, 1, 1, 1],
    ),
    "llm": LlamaConfig(
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        vocab_size=8000,
        tie_word_embeddings=True,
    ),
}


# Base models and data


def random_bases(args: argparse.Namespace, directory: Path) -> dict[str, str]:
    """Write base models with random weights; return their directories."""
    names = {"whisper": args.whisper, "avhubert": "avhubert_large", "llm": args.llm}
    configs = TINY if args.tiny else {k: published_config(n) for k, n in names.items()}
    classes = {"whisper": WhisperEncoder, "avhubert": AVHuBERTModel, "llm": LlamaForCausalLM}
    torch.manual_seed(0)
    out = {}
    for kind, class_ in classes.items():
        out[kind] = str(skeleton(names[kind], directory))
        with torch.device(args.device):
            model = class_(configs[kind])
        model.to(torch.bfloat16 if args.device == "cuda" else torch.float32)
        model.save_pretrained(out[kind])
        del model
    return out


def lrs3_like(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw durations in video frames and numbers of text tokens.

    Four of five utterances are like LRS3's pretrain part, the others like trainval, cut at 24 s;
    3 words a second of 1.3 tokens.
    """
    rng = np.random.default_rng(0)
    pretrain = rng.random(count) < 0.8
    seconds = np.exp(
        np.where(
            pretrain,
            rng.normal(math.log(9.0), 0.75, count),
            rng.normal(math.log(2.8), 0.55, count),
        )
    ).clip(0.6, 24.0)
    words = np.maximum(1, rng.normal(3.0, 0.6, count) * seconds)
    return (seconds * 25).astype(int), (words * 1.3).astype(int)


def public_batches(frames: np.ndarray, max_frames: int, buckets: int = 400) -> list[np.ndarray]:
    """Batch as the public code does: by length buckets, at most so many frames in sum."""
    edges = np.linspace(frames.min(), frames.max(), buckets)
    order = np.argsort(-frames, kind="stable")
    order = order[np.argsort(np.searchsorted(edges, frames[order]), kind="stable")]
    batches, total = [[]], 0
    for i in order:
        if total + frames[i] > max_frames and batches[-1]:
            batches.append([])
            total = 0
        batches[-1].append(int(i))
        total += int(frames[i])
    return [np.array(batch) for batch in batches]


def padding(batches: list[np.ndarray], values: np.ndarray) -> float:
    """Return the share of padding."""
    return 1 - sum(values[b].sum() for b in batches) / sum(
        len(b) * values[b].max() for b in batches
    )


def write_corpus(directory: Path, frames: dict[str, int], text: dict[str, int]) -> None:
    """Write a formatted data directory of smooth moving pictures and noise."""
    rng = np.random.default_rng(1)
    longest = max(frames.values())
    image = rng.random((12, 12)).repeat(16, 0).repeat(16, 1) * 200
    for axis in (0, 1):
        image = sum(np.roll(image, s, axis) for s in range(-8, 9)) / 17
    pictures = np.stack(
        [
            np.roll(image, (3 * t, t), (0, 1))[:96, :96] + rng.normal(0, 2, (96, 96))
            for t in range(50)
        ]
    ).clip(0, 255)
    pictures = np.tile(pictures.astype(np.uint8), (longest // 50 + 1, 1, 1))
    sound = (rng.normal(size=longest * 640) * 0.1).astype(np.float32)
    files = ("wav.scp", "video.scp", "text", "utt2num_samples", "utt2num_frames")
    lines = {name: [] for name in files}
    directory.mkdir()
    for key, n in sorted(frames.items()):
        wav, video = directory / f"{key}.flac", directory / f"{key}.mkv"
        soundfile.write(wav, sound[: n * 640], 16000)
        write_video(video, pictures[:n])
        letters = "".join(rng.choice(list("abcdefgh"), text[key]))
        for name, value in zip(files, (wav, video, letters, n * 640, n), strict=True):
            lines[name].append(f"{key} {value}\n")
    for name, content in lines.items():
        (directory / name).write_text("".join(content))


def task_arguments(args: argparse.Namespace, bases: dict[str, str], directory: Path):
    """Return the arguments of a training as the recipe would give them."""
    config = {
        "audio_frontend_conf": {"model": bases["whisper"]},
        "video_frontend_conf": {"model": bases["avhubert"]},
        "projector_conf": {
            "routing": "dedr",
            "num_experts": 3,
            "hidden_size": 128 if args.tiny else 2048,
            "downsample": {"mode": "stack", **RATES},
        },
        "decoder_conf": {"model": bases["llm"], "prompt": PROMPT},
        "num_workers": args.num_workers,
        "ngpu": int(args.device == "cuda"),
    }
    (directory / "train.yaml").write_text(yaml.safe_dump(config))
    words = ["--config", str(directory / "train.yaml")]
    for data in ("wav.scp,speech,sound", "video.scp,video,video", "text,text,text"):
        words += ["--train_data_path_and_name_and_type", f"{directory}/dump/{data}"]
    words += ["--train_shape_file", f"{directory}/stats/duration_shape"]
    return AVSRTask.get_parser().parse_args([*words, "--output_dir", str(directory / "exp")])


# Choices, each a context in which the model makes it


@contextlib.contextmanager
def attributes(owner: object, **values) -> Iterator[None]:
    """Set attributes of an object, also such as its class has."""
    before = {name: owner.__dict__.get(name, contextlib) for name in values}
    owner.__dict__.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is contextlib:
                del owner.__dict__[name]
            else:
                owner.__dict__[name] = value


def thirty_seconds(model: ESPnetAVSRModel):
    return attributes(model.frontends["audio"], padding="30s")


@contextlib.contextmanager
def numpy_features(model: ESPnetAVSRModel):
    frontend = model.frontends["audio"]
    extractor = WhisperFeatureExtractor(feature_size=frontend.encoder.config.num_mel_bins)

    def log_mel(speech: torch.Tensor, lengths: torch.Tensor, samples: int) -> torch.Tensor:
        rows = [row[:n].float().cpu().numpy() for row, n in zip(speech, lengths, strict=True)]
        mel = extractor(
            rows, sampling_rate=16000, return_tensors="pt", padding="max_length", max_length=samples
        )
        return mel.input_features[..., : samples // 160].to(speech.device)

    with attributes(frontend.log_mel, forward=log_mel):
        yield


def expert_loop(model: ESPnetAVSRModel):
    def loop(pool, x, routing):
        device = x.device.type
        dtype = pool.w1.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        experts, x = pool.stacked(dtype), x.to(dtype)
        out = torch.zeros(len(x), pool.w2.shape[1], dtype=dtype, device=x.device)
        chosen = nn.functional.one_hot(routing.indices, pool.num_experts + 1).permute(2, 1, 0)
        for expert, mask in zip(experts.unbind(), chosen[:-1], strict=True):
            choice, token = torch.where(mask)
            y = expert(x[token]) * routing.weights[token, choice, None].to(dtype)
            out.index_add_(0, token, y)
        return out

    return attributes(model.projector.mixture, mix=loop)


@contextlib.contextmanager
def no_masks(model: ESPnetAVSRModel):
    unmasked = {"audio": UnmaskedWhisperFrontend, "video": UnmaskedAVHuBERTFrontend}
    before = {modality: type(frontend) for modality, frontend in model.frontends.items()}
    try:
        for modality, frontend in model.frontends.items():
            frontend.__class__ = unmasked[modality]
        yield
    finally:
        for modality, frontend in model.frontends.items():
            frontend.__class__ = before[modality]


@contextlib.contextmanager
def training_encoders(model: ESPnetAVSRModel):
    with contextlib.ExitStack() as stack:
        for frontend in model.frontends.values():
            stack.enter_context(
                attributes(frontend, has_lora=True)
            )  # autograd and autocast stay on
            for module in frontend.encoder.modules():
                stack.enter_context(attributes(module, training=True))
        yield


def all_logits(model: ESPnetAVSRModel):
    def forward(decoder, tokens, token_lengths, text, text_lengths):
        filled = text.clamp_min(0)
        prefixes = torch.stack(decoder._prefixes(tokens, {m: _full(t) for m, t in tokens.items()}))
        whole = torch.cat([prefixes, decoder.embed(filled).to(prefixes.dtype)], dim=1)
        hidden = decoder.hidden_states(whole, torch.ones_like(whole[..., 0], dtype=torch.long))
        logits = decoder.logits(hidden).float()
        labels = torch.full(logits.shape[:2], -100, device=text.device)
        ends = decoder.eos_token_id
        inside = torch.arange(text.size(1) + 1, device=text.device) < text_lengths[:, None]
        padded = nn.functional.pad(filled, (0, 1), value=ends)
        target = torch.where(inside, padded, -100)
        target.scatter_(1, text_lengths[:, None], ends)
        labels[:, -text.size(1) - 1 :] = target
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return DecoderOutput(loss, (labels >= 0).sum(), {})

    return attributes(model.decoder, forward=types.MethodType(forward, model.decoder))


def _full(x: torch.Tensor) -> torch.Tensor:
    return torch.full((len(x),), x.shape[1])


@contextlib.contextmanager
def checkpointing(model: ESPnetAVSRModel):
    with contextlib.ExitStack() as stack:
        for layer in _layers(model.decoder.llm):
            stack.enter_context(attributes(layer, forward=layer.forward))
        _checkpoint_layers(model.decoder.llm)
        yield


@contextlib.contextmanager
def compiled(model: ESPnetAVSRModel):
    layers = [
        *model.frontends["audio"].encoder.layers,
        *model.frontends["video"].encoder.encoder.layers,
        *_layers(model.decoder.llm),
    ]
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(attributes(layer, forward=layer.forward))
        compile_layers(layers, when=lambda: True)
        yield


def nothing(model: ESPnetAVSRModel):
    return contextlib.nullcontext()


PUBLIC = {
    "audio padded to 30 s": thirty_seconds,
    "spectrogram by NumPy on the CPU": numpy_features,
    "experts by one-hot masks": expert_loop,
    "no masks": no_masks,
    "encoders in training mode, autograd on": training_encoders,
    "logits at all positions": all_logits,
}
OPTIONS = {
    "AdamW not fused": nothing,
    "activation checkpointing": checkpointing,
    "torch.compile": compiled,
}


# Measuring


class Split:
    """Adds up the time of each part, by hooks on the modules.

    Args:
        model: whose parts.
        now: the clock.
    """

    def __init__(self, model: ESPnetAVSRModel, now: Callable[[], float]):
        self.now = now
        self.times = {}
        self.handles = []
        for name, module in {
            "mel": model.frontends["audio"].log_mel,
            "audio encoder": model.frontends["audio"],
            "video encoder": model.frontends["video"],
            "projector": model.projector,
            "LLM forward": model.decoder,
        }.items():
            self.handles += [
                module.register_forward_pre_hook(lambda *_, n=name: self.add(n, -self.now())),
                module.register_forward_hook(lambda *_, n=name: self.add(n, self.now())),
            ]

    def add(self, name: str, seconds: float) -> None:
        """Count time for a part."""
        self.times[name] = self.times.get(name, 0.0) + seconds

    def shares(self) -> dict[str, float]:
        """Take the hooks off and return each part's share."""
        for handle in self.handles:
            handle.remove()
        times = dict(self.times)
        times["audio encoder"] -= times["mel"]
        total = sum(times.values())
        return {name: seconds / total for name, seconds in times.items()}


class Bench:
    """One model and everything that is measured with it."""

    def __init__(self, args: argparse.Namespace, model: ESPnetAVSRModel, factory: Callable):
        self.args, self.model, self.factory = args, model, factory
        self.cuda = args.device == "cuda"

    def now(self) -> float:
        """Return the time in seconds: of the processor, or with a GPU of the wall."""
        if not self.cuda:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def optimizer(self, fused: bool) -> torch.optim.Optimizer:
        """Return an optimizer without states."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.1, fused=fused or None)

    def step(self, batch: dict, optimizer: torch.optim.Optimizer, split: Split | None = None):
        """Make a step of training."""
        batch = {k: v.to(self.args.device, non_blocking=True) for k, v in batch.items()}
        with torch.autocast("cuda", torch.bfloat16, enabled=self.cuda):
            loss, _, _ = self.model(**batch)
        marks = [self.now()] if split else []
        loss.backward()
        marks += [self.now()] if split else []
        nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        if split:
            split.add("backward", marks[1] - marks[0])
            split.add("optimizer", self.now() - marks[1])

    def run(self, keys: list[tuple[str, ...]], *, fused: bool) -> float:
        """Train on batches; return the seconds."""
        optimizer = self.optimizer(fused)
        start = self.now()
        for _, batch in self.factory(keys):
            self.step(batch, optimizer)
        return self.now() - start

    def split(self, keys: list[tuple[str, ...]], *, fused: bool) -> dict[str, float]:
        """Return each part's share of the time, data loading not overlapped."""
        optimizer, split = self.optimizer(fused), Split(self.model, self.now)
        batches = iter(self.factory(keys, num_workers=0))
        while True:
            start = self.now()
            _, batch = next(batches, (None, None))
            if batch is None:
                return split.shares()
            split.add("data", self.now() - start)
            self.step(batch, optimizer, split)

    def peak_memory(self, batch: dict, *, fused: bool) -> float:
        """Return the peak of a second step, in MiB; on a CPU above what is there between steps."""
        optimizer = self.optimizer(fused)
        self.step(batch, optimizer)
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.step(batch, optimizer)
            return torch.cuda.max_memory_allocated() / 2**20
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
        cpu = torch.profiler.ProfilerActivity.CPU
        with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
            self.step(batch, optimizer)
        now = peak = 0
        for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
            if event.name() == "[memory]":
                now += event.nbytes()
                peak = max(peak, now)
        return peak / 2**20

    def flops(self, keys: list[tuple[str, ...]]) -> int:
        """Count the operations of training on batches, forward and backward."""
        optimizer = self.optimizer(False)
        # On a CPU the fused attention is not counted, its plain products are.
        kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        plain = partial(mix, how="eager")
        with (
            attributes(self.model.projector.mixture, mix=plain),
            sdpa_kernel(kernels if self.cuda else SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            for _, batch in self.factory(keys):
                self.step(batch, optimizer)
        return counter.get_total_flops()

    def growth(self, lengths: list[float]) -> dict:
        """Train on batches of the same speech in utterances of different lengths.

        Returns:
            Seconds and operations per second of speech for each length, and the slopes of their
            totals between the shortest and the longest utterance: 1 is linear.
        """
        speech = max(lengths)
        optimizer = self.optimizer(False)
        rows = {}
        for seconds in lengths:
            batch = random_batch(round(speech / seconds), seconds)
            self.step(batch, optimizer)
            times = []
            for _ in range(3):
                start = self.now()
                self.step(batch, optimizer)
                times.append(self.now() - start)
            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
                self.step(batch, optimizer)
            total = round(speech / seconds) * seconds
            rows[seconds] = {
                "seconds": min(times) / total,
                "operations": counter.get_total_flops() / total,
            }
        first, last = rows[min(lengths)], rows[max(lengths)]
        slopes = {
            name: 1 + math.log(last[name] / first[name]) / math.log(max(lengths) / min(lengths))
            for name in first
        }
        return {"lengths": rows, **slopes}

    def matrix_peak(self) -> float:
        """Measure the operations per second of a large matrix product."""
        n, dtype = (8192, torch.bfloat16) if self.cuda else (1024, torch.float32)
        a = torch.randn(n, n, device=self.args.device, dtype=dtype)
        best = math.inf
        for _ in range(6):
            start = self.now()
            for _ in range(4):
                a @ a
            best = min(best, (self.now() - start) / 4)
        return 2 * n**3 / best


def random_batch(utterances: int, seconds: float) -> dict[str, torch.Tensor]:
    """Return equally long utterances, with 4 tokens of text a second."""
    frames, text = int(seconds * 25), int(seconds * 4)
    return {
        "speech": torch.randn(utterances, frames * 640),
        "speech_lengths": torch.full((utterances,), frames * 640),
        "video": torch.randn(utterances, frames, 88, 88),
        "video_lengths": torch.full((utterances,), frames),
        "text": torch.randint(2, 200, (utterances, text)),
        "text_lengths": torch.full((utterances,), text),
    }


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
    # Batches evenly spaced from the shortest to the longest utterances stand for all.
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

    bench = Bench(args, model, factory)
    settings = {"ours": [nothing], "reference": list(PUBLIC.values())}
    if args.effects:
        settings |= {name: [change] for name, change in {**PUBLIC, **OPTIONS}.items()}
    settings = {n: c for n, c in settings.items() if n not in args.leave_out}
    times = {name: [] for name in settings}
    memory, split = {}, {}
    _, same_batch = next(iter(factory(keys["ours"][len(keys["ours"]) // 2 :], 0)))
    for round_ in range(
        args.rounds + 1
    ):  # the first one warms up, and measures what needs no clock
        for name, changes in settings.items():
            fused = name not in ("reference", "AdamW not fused")
            batches = keys["reference" if name == "reference" else "ours"]
            with contextlib.ExitStack() as stack:
                for change in changes:
                    stack.enter_context(change(model))
                if round_ == 0:
                    memory[name] = bench.peak_memory(same_batch, fused=fused)
                    if name in ("ours", "reference"):
                        split[name] = bench.split(batches, fused=fused)
                else:
                    times[name].append(bench.run(batches, fused=fused))
    flops = bench.flops(keys["ours"])
    speech = {n: sum(int(frames[b].sum()) for b in bs) / 25 for n, bs in chosen.items()}
    # Operations that a second of speech needs, by our setting; the same for all.
    per_second, peak = flops / speech["ours"], bench.matrix_peak()
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
    growth = {"growth": bench.growth([2.0, 4.0, 8.0, 24.0])} if args.growth else {}
    return {
        **growth,
        "rows": rows,
        "split": split,
        "waste": waste,
        "matrix_peak": peak,
        "flops_per_second_of_speech": per_second,
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def report(result: dict) -> str:
    lines = [
        "| | utterances/s | speech s/s | LLM tokens/s | speed | peak MiB | memory | matrix peak |",
        "|---" * 8 + "|",
    ]
    for name, r in result["rows"].items():
        lines.append(
            f"| {name} | {r['utterances_per_second']:.2f} | {r['speech_per_second']:.1f} "
            f"| {r['tokens_per_second']:.0f} | {r['speed']:.2f} | {r['peak_mib']:.0f} "
            f"| {r['memory']:.2f} | {100 * r['share_of_matrix_peak']:.0f} % |"
        )
    parts = list(result["split"]["ours"])
    lines += ["", "| share of time in % | " + " | ".join(parts) + " |"]
    lines.append("|---" * (len(parts) + 1) + "|")
    for name, shares in result["split"].items():
        cells = " | ".join(f"{100 * shares[p]:.0f}" for p in parts)
        lines.append(f"| {name} | {cells} |")
    lines.append("")
    if "growth" in result:
        for seconds, row in result["growth"]["lengths"].items():
            lines.append(
                f"utterances of {seconds:g} s: {1e3 * row['seconds']:.2f} ms and "
                f"{row['operations'] / 1e9:.2f} GFLOP per second of speech"
            )
        lines.append(
            f"growth with the length: time {result['growth']['seconds']:.2f}, operations "
            f"{result['growth']['operations']:.2f} (1 is linear)"
        )
    for name, waste in result["waste"].items():
        lines.append(
            f"padding of the whole corpus, {name}: frames {100 * waste['frames']:.1f} %, "
            f"LLM tokens {100 * waste['tokens']:.1f} %"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tiny", action="store_true", help="small models, for a CPU")
    parser.add_argument("--whisper", default="openai/whisper-base.en")
    parser.add_argument("--llm", default="meta-llama/Llama-3.2-1B")
    parser.add_argument("--effects", action="store_true", help="also change one choice at a time")
    parser.add_argument("--growth", action="store_true", help="also how cost grows with length")
    parser.add_argument("--leave_out", nargs="+", default=[], help="settings not to run")
    parser.add_argument("--batch_frames", type=int, help="700 on the CPU, 4,000 on a GPU")
    parser.add_argument("--batches", type=int, help="of each setting: 6 on the CPU, 24 on a GPU")
    parser.add_argument("--corpus", type=int, default=20000, help="utterances to plan batches of")
    parser.add_argument("--rounds", type=int, help="2 on the CPU, 3 on a GPU")
    parser.add_argument("--num_workers", type=int, help="0 on the CPU, 8 on a GPU")
    parser.add_argument("--json", type=Path, help="write all figures there")
    args = parser.parse_args()
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
    if args.json:
        settings = {k: v for k, v in vars(args).items() if k != "json"}
        args.json.write_text(
            json.dumps({"settings": settings, "device": device, **result}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
