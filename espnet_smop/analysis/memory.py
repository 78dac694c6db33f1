"""The peak memory of a training step, computed: no GPU, no weights, any size of model.

The parts run forward and backward on *fake* tensors, which have shapes, dtypes and lifetimes but no
content, and what is alive at each moment is added up. Content decides nothing but the paths that
depend on lengths: here all utterances are equally long, so that nothing is masked, and an expert
gets its tokens in one piece. Not counted are the CUDA context, the workspaces of kernels and what
the allocator loses to fragments: some 1 to 2 GB.
"""

import argparse
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from espnet_smop.analysis.shape_step import encode, llm_loss, make_fake, project
from espnet_smop.skeleton import use_skeletons
from espnet_smop.tasks.avsr import AVSRTask


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a training step.

    Attributes:
        frozen: weights of the base models.
        trained: trained parameters and AdamW's two moments.
        encoders: the most that lives while the encoders run.
        backward: the most that lives from the projector to the end of the backward pass:
            activations, gradients, features.
    """

    frozen: int
    trained: int
    encoders: int
    backward: int

    @property
    def peak(self) -> int:
        """The most that lives at any time."""
        return self.frozen + self.trained + max(self.encoders, self.backward)


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that operators make, for as long as they live.

    Attributes:
        now: bytes alive.
        peak: the most that was.
    """

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._known = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operator and count what it made."""
        given = {t.untyped_storage() for t in tree_leaves((args, kwargs)) if _is_tensor(t)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if _is_tensor(tensor):
                storage = tensor.untyped_storage()
                if storage not in given and storage not in self._known:
                    size = storage.nbytes()
                    self._known[storage] = size
                    self.now += size
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._free, size)
        return out

    def _free(self, size: int) -> None:
        self.now -= size


def _is_tensor(x: Any) -> bool:
    return isinstance(x, torch.Tensor)


def training_memory(
    config: dict[str, Any],
    skeletons: Path,
    *,
    utterances: int,
    seconds: float,
    text: int,
    dtype: str = "bfloat16",
) -> TrainingMemory:
    """Compute the memory of a training step on a batch of equally long utterances.

    Args:
        config: a training config, complete.
        skeletons: directory for the shapes of published base models that are not here.
        utterances: in the batch.
        seconds: of each.
        text: tokens of each transcript.
        dtype: of the base models; ``bfloat16`` also means autocast, as ``use_amp`` does.

    Raises:
        BaseModelError: the sizes of a base model are not known.
        ValueError: the config trains adapters in an encoder or fuses layers.
    """
    args = argparse.Namespace(**{**config, "base_fingerprints": {}})
    for part in use_skeletons(args, skeletons):
        setattr(args, f"{part}_conf", {**getattr(args, f"{part}_conf"), "dtype": dtype})
    with torch.device("meta"):
        model = AVSRTask.build_model(args)
    if any(f.has_lora for f in model.frontends.values()) or model.projector.needs_layers:
        raise ValueError("memory is computed for frozen encoders without fusion only")
    trained = {id(p): p for p in model.parameters() if p.requires_grad}.values()
    frozen = {id(t): t for t in [*model.parameters(), *model.buffers()]}
    with FakeTensorMode(allow_non_fake_inputs=True):
        make_fake(model)
        with LiveBytes() as encoders, torch.no_grad():
            features = {
                m: encode(frontend, utterances, seconds) for m, frontend in model.frontends.items()
            }
        before = encoders.now
        with LiveBytes() as backward:
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                media, aux = project(model.projector, features)
                loss = llm_loss(model.decoder, media, text) + aux
            loss.backward()
    return TrainingMemory(
        frozen=sum(t.nbytes for t in frozen.values() if not t.requires_grad),
        trained=sum(3 * p.nbytes for p in trained),
        encoders=encoders.peak,
        backward=before + backward.peak,
    )
