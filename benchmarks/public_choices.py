"""The public Llama-AVSR code's choices, each a context that applies it to our model.

``OPTIONS`` also has settings of our own that are off by default.
"""

import contextlib
import types
from functools import partial
from unittest import mock

import numpy as np
import torch
from torch import nn
from transformers import WhisperFeatureExtractor

from espnet_smop.checkpoint.llama_smop.frontends import (
    UnmaskedAVHuBERTFrontend,
    UnmaskedWhisperFrontend,
)
from espnet_smop.compiled import compile_layers
from espnet_smop.decoder.abs_decoder import DecoderOutput
from espnet_smop.decoder.llm import _checkpoint_layers, _layers
from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.projector.dispatch import mix


def thirty_seconds(model: ESPnetAVSRModel):
    return mock.patch.multiple(model.frontends["audio"], padding="30s")


@contextlib.contextmanager
def numpy_features(model: ESPnetAVSRModel):
    frontend = model.frontends["audio"]
    extractor = WhisperFeatureExtractor(feature_size=frontend.encoder.config.num_mel_bins)

    def log_mel(speech: torch.Tensor, lengths: torch.Tensor, samples: int) -> torch.Tensor:
        rows = [row[:n].float().cpu().numpy() for row, n in zip(speech, lengths, strict=True)]
        mel = extractor(
            rows, sampling_rate=16000, return_tensors="pt", padding="max_length", max_length=samples
        )
        return mel.input_features[..., : samples // 160].to(speech.device)

    with mock.patch.multiple(frontend.log_mel, forward=log_mel):
        yield


def expert_loop(model: ESPnetAVSRModel):
    return mock.patch.multiple(model.projector.mixture, mix=partial(mix, how="eager"))


@contextlib.contextmanager
def no_masks(model: ESPnetAVSRModel):
    unmasked = {"audio": UnmaskedWhisperFrontend, "video": UnmaskedAVHuBERTFrontend}
    before = {modality: type(frontend) for modality, frontend in model.frontends.items()}
    try:
        for modality, frontend in model.frontends.items():
            frontend.__class__ = unmasked[modality]
        yield
    finally:
        for modality, frontend in model.frontends.items():
            frontend.__class__ = before[modality]


@contextlib.contextmanager
def training_encoders(model: ESPnetAVSRModel):
    with contextlib.ExitStack() as stack:
        for frontend in model.frontends.values():
            # So autograd and autocast stay on.
            stack.enter_context(mock.patch.multiple(frontend, has_lora=True))
            for module in frontend.encoder.modules():
                stack.enter_context(mock.patch.multiple(module, training=True))
        yield


def all_logits(model: ESPnetAVSRModel):
    def forward(decoder, tokens, token_lengths, text, text_lengths):
        filled = text.clamp_min(0)
        full = {m: torch.full((len(t),), t.shape[1]) for m, t in tokens.items()}
        prefixes = torch.stack(decoder._prefixes(tokens, full))
        whole = torch.cat([prefixes, decoder.embed(filled).to(prefixes.dtype)], dim=1)
        hidden = decoder.hidden_states(whole, torch.ones_like(whole[..., 0], dtype=torch.long))
        logits = decoder.logits(hidden).float()
        labels = torch.full(logits.shape[:2], -100, device=text.device)
        ends = decoder.eos_token_id
        inside = torch.arange(text.size(1) + 1, device=text.device) < text_lengths[:, None]
        padded = nn.functional.pad(filled, (0, 1), value=ends)
        target = torch.where(inside, padded, -100)
        target.scatter_(1, text_lengths[:, None], ends)
        labels[:, -text.size(1) - 1 :] = target
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return DecoderOutput(loss, (labels >= 0).sum(), {})

    return mock.patch.multiple(model.decoder, forward=types.MethodType(forward, model.decoder))


@contextlib.contextmanager
def checkpointing(model: ESPnetAVSRModel):
    with contextlib.ExitStack() as stack:
        for layer in _layers(model.decoder.llm):
            stack.enter_context(mock.patch.multiple(layer, forward=layer.forward))
        _checkpoint_layers(model.decoder.llm)
        yield


@contextlib.contextmanager
def compiled(model: ESPnetAVSRModel):
    layers = [
        *model.frontends["audio"].encoder.layers,
        *model.frontends["video"].encoder.encoder.layers,
        *_layers(model.decoder.llm),
    ]
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(mock.patch.multiple(layer, forward=layer.forward))
        compile_layers(layers, when=lambda: True)
        yield


def nothing(model: ESPnetAVSRModel):
    return contextlib.nullcontext()


PUBLIC = {
    "audio padded to 30 s": thirty_seconds,
    "spectrogram by NumPy on the CPU": numpy_features,
    "experts one after the other": expert_loop,
    "no masks": no_masks,
    "encoders in training mode, autograd on": training_encoders,
    "logits at all positions": all_logits,
}
OPTIONS = {
    "AdamW not fused": nothing,
    "activation checkpointing": checkpointing,
    "torch.compile": compiled,
}


def public_batches(frames: np.ndarray, max_frames: int, buckets: int = 400) -> list[np.ndarray]:
    """Batch as the public code does: by length buckets, with a limit on total frames."""
    edges = np.linspace(frames.min(), frames.max(), buckets)
    order = np.argsort(-frames, kind="stable")
    order = order[np.argsort(np.searchsorted(edges, frames[order]), kind="stable")]
    batches, total = [[]], 0
    for i in order:
        if total + frames[i] > max_frames and batches[-1]:
            batches.append([])
            total = 0
        batches[-1].append(int(i))
        total += int(frames[i])
    return [np.array(batch) for batch in batches]
