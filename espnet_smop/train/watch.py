"""Detects non-finite losses and routers that collapse to one expert."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from espnet_smop.fileio.atomic import atomic_path

DUMP = "nonfinite_batch.pth"
"""File in the experiment's directory with the batch at which training was aborted."""

_COLLAPSED = 0.9
_FIRST = re.compile(r"(?P<router>router_.+)_first_(?P<expert>\d+)")


class NonFiniteLossError(RuntimeError):
    """Too many consecutive losses were NaN or infinite; the message names the last utterances."""


class TrainingWatch:
    """Checks the model's outputs during training; a context around an epoch.

    Example::

        with TrainingWatch(model, output_dir, patience=10) as watch:
            train()
        watch.report_collapse(epoch)

    Args:
        model: its ``forward`` takes ``utt_id`` and returns loss, statistics and weight.
        output_dir: where to write the batch at which training was aborted.
        patience: abort after more than this many consecutive batches with a NaN or infinite loss;
            the trainer skips their updates.
    """

    def __init__(self, model: nn.Module, output_dir: str | Path, patience: int):
        self.model = model
        self.output_dir = Path(output_dir)
        self.patience = patience
        self.in_a_row = 0
        self.shares: dict[str, torch.Tensor] = {}
        self.batches = 0

    def __enter__(self) -> "TrainingWatch":
        self._hook = self.model.register_forward_hook(self._look, with_kwargs=True)
        return self

    def __exit__(self, *exception: object) -> None:
        self._hook.remove()

    def _look(self, model: nn.Module, args: tuple, batch: Mapping[str, Any], output: tuple) -> None:
        if not model.training:
            return
        loss, stats, _ = output
        self.batches += 1
        for name, value in stats.items():
            if _FIRST.fullmatch(name):
                # Summed on its device, so that the host does not wait for a GPU.
                self.shares[name] = self.shares.get(name, 0) + value.detach()
        if torch.isfinite(loss).all():
            self.in_a_row = 0
            return
        self.in_a_row += 1
        ids = list(batch.get("utt_id", ()))
        # As an error: on ranks other than the first, ESPnet logs nothing below that level.
        logging.error("the loss is %s in the batch of %s", loss.item(), " ".join(ids))
        if self.in_a_row > self.patience:
            self._stop(ids, batch)

    def _stop(self, ids: Sequence[str], batch: Mapping[str, Any]) -> None:
        tensors = {k: v.cpu() for k, v in batch.items() if isinstance(v, torch.Tensor)}
        with atomic_path(self.output_dir / DUMP) as partial:
            torch.save({"utt_id": list(ids), **tensors}, partial)
        raise NonFiniteLossError(
            f"the loss was NaN or infinite in {self.in_a_row} batches in a row, the last with "
            f"{' '.join(ids)} (saved as {self.output_dir / DUMP}). Check these utterances; if "
            "nothing is wrong with them, lower the learning rate or grad_clip"
        )

    def report_collapse(self, epoch: int) -> list[str]:
        """Warn about each router that sent more than 90 % of its tokens to one expert.

        Args:
            epoch: number of the epoch, for the warnings.

        Returns:
            The warnings.
        """
        routers: dict[str, dict[int, float]] = {}
        for name, total in self.shares.items():
            found = _FIRST.fullmatch(name)
            share = float(total) / max(self.batches, 1)
            routers.setdefault(found["router"], {})[int(found["expert"])] = share
        warnings = []
        for router, shares in routers.items():
            expert = max(shares, key=lambda e: shares[e])
            if len(shares) > 1 and shares[expert] > _COLLAPSED:
                warnings.append(
                    f"epoch {epoch}: {router} sends {shares[expert]:.0%} of its tokens to expert "
                    f"{expert} of {len(shares)}. Raise projector_conf load_balancing_weight, or "
                    "lower the learning rate or num_experts"
                )
        for line in warnings:
            logging.warning("%s", line)
        return warnings
