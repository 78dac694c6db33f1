"""Distributed training: what each process needs beyond ESPnet's support."""

import contextlib
import ctypes
import re
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from espnet2.iterators.sequence_iter_factory import SequenceIterFactory, worker_init_fn
from torch.distributed import DistBackendError, DistNetworkError
from torch.multiprocessing import ProcessExitedException
from torch.utils.data import DataLoader

from espnet_smop.command import DEBUG, errors_in_one_line

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 5
_LOST = re.compile("Connection (closed|reset) by peer|Broken pipe")  # gloo's errors have no class
_BETWEEN_RANKS = 10007
"""Distance between the seeds of two ranks; greater than the number of a rank's workers."""


def end_with_parent() -> None:
    """Ask Linux to end this process when its parent ends, even by SIGKILL.

    ESPnet's launcher does not forward signals to the ranks, which would keep the GPUs busy.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class RankError(RuntimeError):
    """Another process of the training failed; the message gives the cause if it is known."""


@contextlib.contextmanager
def connection_errors() -> Iterator[None]:
    """Explain errors of a broken connection to the other processes.

    Raises:
        RankError: one of them has ended, so this one cannot continue.
    """
    try:
        yield
    except RuntimeError as e:
        if not isinstance(e, DistBackendError | DistNetworkError) and not _LOST.search(str(e)):
            raise
        raise RankError(
            "another process of the training has ended: see its error message, in its own log if "
            "it has one"
        ) from e


@contextlib.contextmanager
def rank_errors(rank: int) -> Iterator[None]:
    """Report an error of a process that ESPnet started in one line, as `command.run` does.

    Args:
        rank: of this process.
    """
    with errors_in_one_line(f"avsr_train: process {rank}", debug=DEBUG in sys.argv):
        try:
            yield
        except RankError:
            # Meanwhile the launcher terminates this process, so that only the cause is shown.
            time.sleep(_GRACE_SECONDS)
            raise


@contextlib.contextmanager
def errors_of_ranks() -> Iterator[None]:
    """Exit with status 1 if a process that ESPnet started has printed its error.

    Raises:
        RankError: a signal killed one.
    """
    try:
        yield
    except ProcessExitedException as e:
        if e.signal_name is None:
            sys.exit(1)
        raise RankError(
            f"process {e.error_index} of the training was killed by {e.signal_name}: SIGKILL often "
            "means that the machine ran out of memory, see dmesg"
        ) from None


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
