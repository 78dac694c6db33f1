"""ESPnet's trainer, with checkpoints that a kill or a full disk cannot harm."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from espnet2.torch_utils.safe_torch_load import safe_torch_load
from espnet2.train.trainer import Trainer

from espnet_smop.fileio.atomic import atomic_path


@contextlib.contextmanager
def atomic_torch_save() -> Iterator[None]:
    """Make ``torch.save`` to a path write a temporary file first and rename it when complete.

    ESPnet's trainer and model averaging call ``torch.save`` themselves, so this replaces it for
    as long as the context lasts.
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

    The trainer writes ``checkpoint.pth`` first: a kill right after it leaves an epoch that counts
    as done without its model file. What is missing is taken from the checkpoint.
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


class AVSRTrainer(Trainer):
    """ESPnet's trainer with atomic checkpoints."""

    @classmethod
    def run(cls, *, trainer_options, distributed_option, **kwargs) -> None:
        """Train, resuming from the last complete epoch if asked to."""
        is_main = not distributed_option.distributed or distributed_option.dist_rank == 0
        if trainer_options.resume and is_main:
            complete_last_epoch(Path(trainer_options.output_dir))
        with atomic_torch_save():
            super().run(
                trainer_options=trainer_options, distributed_option=distributed_option, **kwargs
            )
