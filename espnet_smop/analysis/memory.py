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
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from espnet_smop.decoder.prompt import prompt_ids
from espnet_smop.fileio.sources import FRAME_RATE, SAMPLE_RATE
from espnet_smop.frontend.log_mel import HOP
from espnet_smop.frontend.resnet import _FRAMES_AT_ONCE
from espnet_smop.frontend.whisper import SAMPLES_PER_FRAME, encode
from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.projector.experts import Expert
from espnet_smop.skeleton import use_skeletons
from espnet_smop.tasks.avsr import AVSRTask

_CROP = 88


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
        _make_fake(model)
        with LiveBytes() as encoders:
            features = _encode(model, utterances, seconds)
        before = encoders.now
        with LiveBytes() as backward:
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                loss = _loss(model, features, text)
            loss.backward()
    return TrainingMemory(
        frozen=sum(t.nbytes for t in frozen.values() if not t.requires_grad),
        trained=sum(3 * p.nbytes for p in trained),
        encoders=encoders.peak,
        backward=before + backward.peak,
    )


def _make_fake(model: nn.Module) -> None:
    """Replace what is on the meta device by fake tensors on the CPU; tied ones stay tied."""
    made = {}
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                    if store is module._parameters:
                        fake = nn.Parameter(fake, requires_grad=tensor.requires_grad)
                    made[id(tensor)] = (tensor, fake)
                store[name] = made[id(tensor)][1]


@torch.no_grad()
def _encode(model: ESPnetAVSRModel, utterances: int, seconds: float) -> dict[str, torch.Tensor]:
    """Return the features ``(B, T, D)`` of each modality."""
    features = {}
    for modality, frontend in model.frontends.items():
        if modality == "audio":
            samples = int(seconds * SAMPLE_RATE)
            if frontend.padding == "30s":
                samples = frontend.max_samples
            speech = torch.empty(utterances, samples)
            mels = frontend.encoder.config.num_mel_bins
            frames = 2 * (samples // SAMPLES_PER_FRAME)
            assert frames <= samples // HOP
            x = encode(frontend.encoder, torch.empty(utterances, mels, frames))[-1]
            features[modality] = x[:, : int(seconds * frontend.frame_rate)].clone()
            del speech, x
        else:
            features[modality] = _encode_video(frontend.encoder, utterances, seconds)
    return features


def _encode_video(encoder: nn.Module, utterances: int, seconds: float) -> torch.Tensor:
    frames = int(seconds * FRAME_RATE)
    dtype = encoder.post_extract_proj.weight.dtype
    video = torch.empty(utterances, frames, _CROP, _CROP).to(dtype)
    resnet = encoder.feature_extractor_video.resnet
    x = resnet.frontend3D[0](video[:, None])
    pictures = x.transpose(1, 2).flatten(0, 1).clone()
    x = torch.cat(
        [
            resnet.trunk(resnet.frontend3D[1:](part)).mean(dim=(2, 3))
            for part in pictures.split(_FRAMES_AT_ONCE)
        ]
    )
    del pictures
    v = encoder.feature_extractor_video.proj(x.unflatten(0, (utterances, frames)))
    x = encoder.post_extract_proj(encoder.layer_norm(torch.cat([torch.zeros_like(v), v], dim=-1)))
    x = x + encoder.encoder.pos_conv(x)
    for layer in encoder.encoder.layers:
        x = layer(x, None)
    return encoder.encoder.layer_norm(x)


def _loss(model: ESPnetAVSRModel, features: dict[str, torch.Tensor], text: int) -> torch.Tensor:
    projector, decoder = model.projector, model.decoder
    lengths = {m: torch.full((len(x),), x.shape[1]) for m, x in features.items()}
    features = {m: projector._own_precision(x) for m, x in features.items()}
    tokens, _ = projector.stem(features, lengths, {})
    rows = len(next(iter(tokens.values())))
    flat = {m: t.flatten(0, 1) for m, t in tokens.items()}
    projector.mixture.mix = _mix_in_one_piece
    valid = {m: torch.ones(len(t), dtype=torch.bool) for m, t in flat.items()}
    media, routings = projector.mixture(flat, valid)
    aux, _, _ = projector._account(routings, media)
    media = [y.unflatten(0, (rows, -1)) for y in media.values()]
    around = prompt_ids(
        decoder.tokenizer, decoder.prompt or "", chat_template=decoder.chat_template
    )
    fixed = torch.empty(rows, sum(map(len, around)) + 2 * len(media), decoder.embed_size)
    words = decoder.embed(torch.zeros(rows, text, dtype=torch.long)).float()
    embeddings = torch.cat([fixed, *(y.float() for y in media), words], dim=1)
    table = decoder.llm.get_input_embeddings().weight
    hidden = decoder.llm.base_model(
        inputs_embeds=embeddings.to(table.dtype), use_cache=False
    ).last_hidden_state
    logits = decoder.logits(hidden[:, -text - 1 :].flatten(0, 1)).float()
    targets = torch.zeros(len(logits), dtype=torch.long)
    return nn.functional.cross_entropy(logits, targets) + aux


def _mix_in_one_piece(pool: nn.Module, x: torch.Tensor, routing) -> torch.Tensor:
    """Do what a grouped dispatch does, with all rows going to one expert."""
    dtype = pool.w1.dtype
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
    with torch.autocast(x.device.type, enabled=False):
        experts = pool.stacked(dtype)
        expert = Expert(*(None if p is None else p[0] for p in experts))
        choices = 1 if routing is None else routing.weights.shape[1]
        y = expert(x.to(dtype).repeat_interleave(choices, 0)).unflatten(0, (-1, choices))
        if routing is None:
            return y[:, 0]
        return (y * routing.weights.to(dtype)[..., None]).sum(1)
