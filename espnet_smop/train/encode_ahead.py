"""On a CPU: run the frozen encoders of the next batch while the model trains on this one."""

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

Batch = tuple[list[str], dict[str, torch.Tensor]]


class EncodeAhead:
    """Batches with the frontends' features beside their inputs, made one batch ahead.

    The small operations of a training step leave a second thread of PyTorch's little to do, while
    two steps of the work side by side fill two cores. So half of the threads go to each side for
    as long as an iteration lasts. A GPU runs one kernel after the other and gains nothing.

    Args:
        batches: ids and tensors, as ESPnet's iterators give them.
        encode: makes features of a batch's inputs, `ESPnetAVSRModel.with_features`.
    """

    def __init__(
        self,
        batches: Collection,
        encode: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    ):
        self.batches = batches
        self.encode = encode

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        threads = torch.get_num_threads()
        theirs = max(threads // 2, 1)
        torch.set_num_threads(max(threads - theirs, 1))
        # The number of threads is each Python thread's own.
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(theirs,)) as pool:
            try:
                coming: tuple[list[str], Future] | None = None
                for keys, batch in self.batches:
                    current, coming = coming, (keys, pool.submit(self.encode, batch))
                    if current is not None:
                        yield current[0], current[1].result()
                if coming is not None:
                    yield coming[0], coming[1].result()
            finally:
                torch.set_num_threads(threads)
