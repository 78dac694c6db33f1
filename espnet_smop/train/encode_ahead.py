"""On a CPU: run the frozen encoders on the next batch while the model trains on the current one."""

import contextlib
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from espnet_smop.frontend.precomputed import PrecomputedFeatures
from espnet_smop.modality import MODALITIES
from espnet_smop.model import ESPnetAVSRModel

Batch = tuple[list[str], dict[str, torch.Tensor]]


def has_fixed_features(model: ESPnetAVSRModel) -> bool:
    """Whether frontends have to run, and training does not change their features."""
    frontends = model.frontends.values()
    if all(isinstance(frontend, PrecomputedFeatures) for frontend in frontends):
        return False
    return not any(f.is_trained for f in frontends) and not model.projector.needs_layers


@contextlib.contextmanager
def encoding_ahead(model: ESPnetAVSRModel, batches: Collection) -> Iterator[Collection]:
    """Within the context, let the model read features that are computed one batch ahead.

    Args:
        model: its frontends have fixed features.
        batches: ids and tensors, as ESPnet's iterators yield them.
    """
    frontends = dict(model.frontends)

    @torch.no_grad()
    def encode(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        batch = dict(batch)
        for modality, frontend in frontends.items():
            name = MODALITIES[modality].data_name
            if name in batch:
                batch[name], batch[f"{name}_lengths"] = frontend(
                    batch[name], batch[f"{name}_lengths"]
                )
        return batch

    for modality, frontend in frontends.items():
        frontend.train()  # the trainer's call for the whole model will not reach it
        model.frontends[modality] = PrecomputedFeatures(frontend)
    try:
        yield EncodeAhead(batches, encode)
    finally:
        for modality, frontend in frontends.items():
            model.frontends[modality] = frontend


class EncodeAhead:
    """Batches whose signals are replaced by features, each computed one batch ahead.

    The small operations of a training step leave a second PyTorch thread nearly idle, while
    encoding and training in parallel use two cores fully. So each gets half of the threads during
    an iteration. A GPU runs one kernel after the other and gains nothing.

    Args:
        batches: ids and tensors, as ESPnet's iterators yield them.
        encode: maps a batch of signals to one of features.
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
        # The number of threads is a setting of each Python thread.
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(theirs,)) as pool:
            try:
                pending: tuple[list[str], Future] | None = None
                for keys, batch in self.batches:
                    current, pending = pending, (keys, pool.submit(self.encode, batch))
                    if current is not None:
                        yield current[0], current[1].result()
                if pending is not None:
                    yield pending[0], pending[1].result()
            finally:
                torch.set_num_threads(threads)
