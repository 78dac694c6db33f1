"""The number of data loading processes."""

import os

import torch

_MOST = 4  # load more than 1,000 s of speech per second


def data_workers(text: str) -> int:
    """Parse ``num_workers``.

    ``auto`` is one for each core that this process may use and that trains on no GPU, shared among
    the visible GPUs, but at least one and at most four. Without a GPU it is one, because the
    training needs the cores.

    Raises:
        ValueError: it is neither ``auto`` nor a whole number.
    """
    if text != "auto":
        return int(text)
    gpus = torch.cuda.device_count()
    if gpus == 0:
        return 1
    return min(max(len(os.sched_getaffinity(0)) // gpus - 1, 1), _MOST)
