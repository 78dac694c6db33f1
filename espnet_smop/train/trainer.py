"""ESPnet's trainer with checkpoints that survive a kill or a full disk."""

import argparse
import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import humanfriendly
import torch
from espnet2.torch_utils.safe_torch_load import safe_torch_load
from espnet2.train.trainer import Trainer, TrainerOptions
from espnet2.utils.build_dataclass import build_dataclass

from espnet_smop.fileio.atomic import atomic_path
from espnet_smop.train.cpu_autocast import cpu_autocast
from espnet_smop.train.encode_ahead import encoding_ahead, has_fixed_features
from espnet_smop.train.watch import TrainingWatch


@contextlib.contextmanager
def atomic_torch_save() -> Iterator[None]:
    """Make ``torch.save`` write a temporary file first and rename it when complete.

    ESPnet's trainer and model averaging call ``torch.save`` themselves, so it is replaced within
    this context.
    """
    plain_save = torch.save

    def save(obj, f, *args, **kwargs):
        if not isinstance(f, str | os.PathLike):
            return plain_save(obj, f, *args, **kwargs)
        try:
            with atomic_path(f) as partial, partial.open("wb") as stream:
                plain_save(obj, stream, *args, **kwargs)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as e:
            raise OSError(
                e.errno, f"cannot write checkpoint {f}: {e.strerror}. The previous one is intact"
            ) from e

    torch.save = save
    try:
        yield
    finally:
        torch.save = plain_save


def complete_last_epoch(output_dir: Path) -> None:
    """Bring ``<N>epoch.pth`` and ``latest.pth`` in line with ``checkpoint.pth``.

    The trainer writes ``checkpoint.pth`` first: a kill right after that leaves a finished epoch
    without its model file. It is then written from the checkpoint.
    """
    checkpoint = output_dir / "checkpoint.pth"
    if not checkpoint.exists():
        return
    states = safe_torch_load(checkpoint, map_location="cpu")
    epoch = states["reporter"]["epoch"]
    model_file = output_dir / f"{epoch}epoch.pth"
    if not model_file.exists():
        logging.warning("%s is missing: writing it from checkpoint.pth", model_file)
        with atomic_torch_save():
            torch.save(states["model"], model_file)
    latest = output_dir / "latest.pth"
    latest.unlink(missing_ok=True)
    latest.symlink_to(model_file.name)


class WithProgress:
    """The batches of one epoch; iterating logs progress and the time left every ten seconds.

    Args:
        batches: the batches of the epoch.
        epoch: its number.
        max_epoch: number of the last epoch.
    """

    def __init__(self, batches: Collection, epoch: int, max_epoch: int):
        self.batches = batches
        self.epoch = epoch
        self.max_epoch = max_epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator:
        start = reported = time.perf_counter()
        for number, batch in enumerate(self.batches, start=1):
            yield batch
            now = time.perf_counter()
            if now - reported > 10:
                reported = now
                of_epochs = (self.max_epoch - self.epoch) * len(self)
                left = (now - start) / number * (of_epochs + len(self) - number)
                logging.info(
                    "epoch %d/%d, batch %d/%d, %s left",
                    self.epoch, self.max_epoch, number, len(self),
                    humanfriendly.format_timespan(round(left)),
                )  # fmt: skip


@dataclasses.dataclass
class AVSRTrainerOptions(TrainerOptions):
    """ESPnet's options and one more."""

    nonfinite_patience: int
    """Abort training after more than this many consecutive batches with a NaN or infinite loss."""


class AVSRTrainer(Trainer):
    """ESPnet's trainer with atomic checkpoints, checks of the losses and a progress log."""

    @classmethod
    def build_options(cls, args: argparse.Namespace) -> AVSRTrainerOptions:
        """Select the trainer's options from all arguments."""
        return build_dataclass(AVSRTrainerOptions, args)

    @classmethod
    def run(cls, *, model, trainer_options, distributed_option, **kwargs) -> None:
        """Train; with ``resume``, from the last complete epoch on."""
        is_main = not distributed_option.distributed or distributed_option.dist_rank == 0
        if trainer_options.resume and is_main:
            complete_last_epoch(Path(trainer_options.output_dir))
        if model.views.vary:  # a step does not use the parameters of other rates
            trainer_options.unused_parameters = True
        with contextlib.ExitStack() as stack:
            stack.enter_context(atomic_torch_save())
            if trainer_options.use_amp and trainer_options.ngpu == 0:
                trainer_options.use_amp = False
                stack.enter_context(cpu_autocast(model))
            super().run(
                model=model,
                trainer_options=trainer_options,
                distributed_option=distributed_option,
                **kwargs,
            )

    @classmethod
    def train_one_epoch(cls, *, model, iterator, reporter, options, **kwargs) -> bool:
        """Train for one epoch; True if no step was valid.

        Raises:
            NonFiniteLossError: too many consecutive losses were NaN or infinite.
        """
        epoch = reporter.get_epoch()
        plain_model = getattr(model, "module", model)
        with contextlib.ExitStack() as stack:
            watch = stack.enter_context(
                TrainingWatch(model, options.output_dir, options.nonfinite_patience)
            )
            if (
                torch.get_num_threads() > 1
                and options.ngpu == 0
                and has_fixed_features(plain_model)
            ):
                iterator = stack.enter_context(encoding_ahead(plain_model, iterator))
            iterator = WithProgress(iterator, epoch, options.max_epoch)
            invalid = super().train_one_epoch(
                model=model, iterator=iterator, reporter=reporter, options=options, **kwargs
            )
        watch.report_collapse(epoch)
        return invalid
