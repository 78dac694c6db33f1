"""Steps of training for train.py, with their time, memory and operations."""

import argparse
import math
from collections.abc import Callable
from functools import partial
from unittest import mock

import timing
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from training_data import random_batch

from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.projector.dispatch import mix


class Split:
    """Sums the time of each part of the model, by hooks on its modules.

    Args:
        model: the model.
        now: returns seconds.
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
        """Add time to a part."""
        self.times[name] = self.times.get(name, 0.0) + seconds

    def shares(self) -> dict[str, float]:
        """Remove the hooks and return each part's share."""
        for handle in self.handles:
            handle.remove()
        times = dict(self.times)
        times["audio encoder"] -= times["mel"]
        total = sum(times.values())
        return {name: seconds / total for name, seconds in times.items()}


class Steps:
    """Trains one model on batches and measures time, memory and operations."""

    def __init__(self, args: argparse.Namespace, model: ESPnetAVSRModel, factory: Callable):
        self.args, self.model, self.factory = args, model, factory
        self.cuda = args.device == "cuda"

    def now(self) -> float:
        """Return the time in seconds."""
        return timing.now(self.args.device)

    def optimizer(self, fused: bool) -> torch.optim.Optimizer:
        """Return an optimizer without states."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.1, fused=fused or None)

    def step(self, batch: dict, optimizer: torch.optim.Optimizer, split: Split | None = None):
        """Make a training step."""
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
        """Return a second step's peak in MiB; on a CPU, beyond the memory between steps."""
        optimizer = self.optimizer(fused)
        self.step(batch, optimizer)
        between = torch.cuda.memory_allocated() / 2**20 if self.cuda else 0.0
        return between + timing.peak_memory(lambda: self.step(batch, optimizer), self.args.device)

    def flops(self, keys: list[tuple[str, ...]]) -> int:
        """Count the operations of training on batches, forward and backward."""
        optimizer = self.optimizer(False)
        # On a CPU fused attention is not counted; its plain products are.
        kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        plain = partial(mix, how="eager")
        with (
            mock.patch.multiple(self.model.projector.mixture, mix=plain),
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
        ends = (min(lengths), max(lengths))
        slopes = {
            name: timing.slope({n: n * rows[n][name] for n in ends})
            for name in ("seconds", "operations")
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
