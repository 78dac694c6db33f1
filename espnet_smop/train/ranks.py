"""Several processes that train one model: what ESPnet leaves to be done in each."""

import ctypes
import signal
from functools import partial
from typing import Any

from espnet2.iterators.sequence_iter_factory import SequenceIterFactory, worker_init_fn
from torch.utils.data import DataLoader

_PR_SET_PDEATHSIG = 1
_BETWEEN_RANKS = 10007
"""Between the seeds of two ranks; more than a rank has workers."""


def end_with_parent() -> None:
    """Ask Linux to end this process when the one that started it ends, even by SIGKILL.

    ESPnet's parent of the ranks passes no signal on: they would keep the GPUs.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class RankIterFactory(SequenceIterFactory):
    """ESPnet's, with augmentation of its own in each process; there it is the same in all.

    Args:
        rank: of this process; 0 has ESPnet's seeds.
        kwargs: of ESPnet's factory.
    """

    def __init__(self, *, rank: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.rank = rank

    def build_iter(self, epoch: int, shuffle: bool | None = None) -> DataLoader:
        """Return the batches of an epoch; their order is not the rank's matter."""
        loader = super().build_iter(epoch, shuffle)
        seed = epoch + self.seed + _BETWEEN_RANKS * self.rank
        loader.worker_init_fn = partial(worker_init_fn, base_seed=seed)
        return loader
