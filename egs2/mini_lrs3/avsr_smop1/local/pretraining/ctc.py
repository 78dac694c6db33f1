"""CTC training of an encoder from scratch (Graves et al. 2006)."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from torch import nn
from torch.nn import functional as F

from espnet_smop.fileio.atomic import atomic_path
from espnet_smop.projector.downsample import AveragePool
from pretraining.muon import muon_and_adamw, warmup_and_cosine

Targets = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Transcripts in one or several kinds of tokens: padded ids ``(B, L)`` and lengths ``(B,)``."""


class CTCModel(nn.Module):
    """An encoder with a linear output layer for each kind of tokens, such as letters and words.

    Output 0 is the blank, token i has output i + 1.

    Args:
        encode: module that maps inputs and lengths to features ``(B, T, D)`` and lengths ``(B,)``.
        width: D.
        vocabularies: number of tokens of each kind.
        strides: for each kind, the number of consecutive features that are averaged before its
            output layer, so that its tokens can be recognised from features that a projector
            downsamples likewise. 1 by default.
    """

    def __init__(
        self,
        encode: nn.Module,
        *,
        width: int,
        vocabularies: Sequence[int],
        strides: Sequence[int] | None = None,
    ):
        super().__init__()
        self.encode = encode
        strides = strides or [1] * len(vocabularies)
        self.downsamples = nn.ModuleList(AveragePool(width, stride) for stride in strides)
        self.outputs = nn.ModuleList(nn.Linear(width, size + 1) for size in vocabularies)

    def forward(
        self, x: torch.Tensor, x_lengths: torch.Tensor
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return for each kind log probabilities ``(B, T, V + 1)`` and lengths ``(B,)``."""
        features, lengths = self.encode(x, x_lengths)
        outputs = []
        for downsample, layer in zip(self.downsamples, self.outputs, strict=True):
            reduced, reduced_lengths = downsample(features, lengths)
            outputs.append((F.log_softmax(layer(reduced).float(), dim=-1), reduced_lengths))
        return outputs

    def loss(self, x: torch.Tensor, x_lengths: torch.Tensor, targets: Targets) -> torch.Tensor:
        """Return the sum over the kinds of tokens of the mean loss per token."""
        return sum(
            F.ctc_loss(
                log_probs.transpose(0, 1), ids.clamp(min=0) + 1, lengths, ids_lengths,
                reduction="mean", zero_infinity=True,
            )
            for (log_probs, lengths), (ids, ids_lengths) in zip(
                self(x, x_lengths), targets, strict=True
            )
        )  # fmt: skip

    @torch.no_grad()
    def greedy(self, x: torch.Tensor, x_lengths: torch.Tensor) -> list[list[int]]:
        """Return each utterance's best path in tokens of the last kind."""
        log_probs, lengths = self(x, x_lengths)[-1]
        best = log_probs.argmax(-1)
        hypotheses = []
        for row, length in zip(best, lengths.tolist(), strict=True):
            ids = torch.unique_consecutive(row[:length])
            hypotheses.append((ids[ids > 0] - 1).tolist())
        return hypotheses


@dataclass
class CTCConfig:
    """Hyperparameters of the training.

    Attributes:
        epochs: passes over the training data.
        batch_size: utterances per step.
        lr: peak learning rate of AdamW (linear warm-up over a tenth, then cosine to zero).
        matrix_lr: peak learning rate of Muon, which trains the transformer's matrices.
        weight_decay: weight decay of both.
        grad_clip: largest gradient norm.
        seed: seed of shuffling, dropout and augmentation.
    """

    epochs: int = 10
    batch_size: int = 8
    lr: float = 2e-3
    matrix_lr: float = 0.02
    weight_decay: float = 0.01
    grad_clip: float = 5.0
    seed: int = 0


Batch = tuple[torch.Tensor, torch.Tensor, Targets]
"""x, x_lengths and targets, as ``CTCModel.loss`` takes them."""

Batches = Callable[[int], Iterator[Batch]]
"""Maps an epoch to its batches."""


def train_ctc(
    model: CTCModel,
    train: Batches,
    steps_per_epoch: int,
    config: CTCConfig,
    *,
    checkpoint: Path | None = None,
) -> None:
    """Train a model in place, logging progress and the time left every ten seconds.

    Args:
        model: the model.
        train: the batches of an epoch.
        steps_per_epoch: their number.
        config: hyperparameters.
        checkpoint: file to write after each epoch; an interrupted training of the same config
            resumes from it.
    """
    optimizers = muon_and_adamw(
        model, lr=config.lr, matrix_lr=config.matrix_lr, weight_decay=config.weight_decay
    )
    total = config.epochs * steps_per_epoch
    schedulers = warmup_and_cosine(optimizers, warmup=max(1, total // 10), steps=total)
    parts = {
        "model": model,
        **{f"optimizer{i}": o for i, o in enumerate(optimizers)},
        **{f"schedule{i}": s for i, s in enumerate(schedulers)},
    }
    first = 1
    if checkpoint is not None and checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["config"] == vars(config):
            first = saved["epoch"] + 1
            for name, state in saved["states"].items():
                parts[name].load_state_dict(state)
            logging.info("resuming after epoch %d", first - 1)
    start = reported = time.perf_counter()
    done = step = (first - 1) * steps_per_epoch
    recent = []
    for epoch in range(first, config.epochs + 1):
        model.train()
        for batch in train(epoch):
            loss = model.loss(*batch)
            model.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
            for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
                if torch.isfinite(norm):
                    optimizer.step()
                scheduler.step()
            step += 1
            recent.append(loss.item())
            now = time.perf_counter()
            if now - reported > 10 or step == total:
                left = (now - start) / (step - done) * (total - step)
                logging.info(
                    "epoch %d/%d, step %d/%d, loss %.3f, %.0f s left",
                    epoch, config.epochs, step, total, np.mean(recent), left,
                )  # fmt: skip
                reported, recent = now, []
        if checkpoint is not None:
            states = {name: part.state_dict() for name, part in parts.items()}
            with atomic_path(checkpoint) as partial_path:
                torch.save({"config": vars(config), "epoch": epoch, "states": states}, partial_path)


def error_rate(
    model: CTCModel, batches: Iterator[Batch], decode: Callable[[Sequence[int]], str]
) -> float:
    """Return the word error rate of greedy decoding by the last kind of tokens, in percent."""
    model.eval()
    errors = words = 0
    for x, x_lengths, targets in batches:
        hypotheses = model.greedy(x, x_lengths)
        for hypothesis, ids, length in zip(hypotheses, *targets[-1], strict=True):
            reference = decode(ids[:length].tolist()).split()
            errors += Levenshtein.distance(reference, decode(hypothesis).split())
            words += len(reference)
    return 100 * errors / max(words, 1)
