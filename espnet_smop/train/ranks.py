"""Distributed training: what each process needs beyond ESPnet's support."""

import ctypes
import signal
from functools import partial
from typing import Any

from espnet2.iterators.sequence_iter_factory import SequenceIterFactory, worker_init_fn
from torch.utils.data import DataLoader

_PR_SET_PDEATHSIG = 1
_BETWEEN_RANKS = 10007
"""Distance between the seeds of two ranks; greater than the number of a rank's workers."""


def end_with_parent() -> None:
    """Ask Linux to end this process when its parent ends, even by SIGKILL.

    ESPnet's launcher does not forward signals to the ranks, which would keep the GPUs.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class RankIterFactory(SequenceIterFactory):
    """ESPnet's factory, but with different random augmentation on each rank.

    Args:
        rank: of this process; rank 0 has ESPnet's seeds.
        kwargs: arguments of ESPnet's factory.
    """

    def __init__(self, *, rank: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.rank = rank

    def build_iter(self, epoch: int, shuffle: bool | None = None) -> DataLoader:
        """Return the batches of an epoch, in the same order on every rank."""
        loader = super().build_iter(epoch, shuffle)
        seed = epoch + self.seed + _BETWEEN_RANKS * self.rank
        loader.worker_init_fn = partial(worker_init_fn, base_seed=seed)
        return loader
