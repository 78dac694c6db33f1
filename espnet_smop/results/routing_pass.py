"""One pass of a trained model over some utterances: experts chosen, and operations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from espnet2.train.dataset import ESPnetDataset

from espnet_smop.fileio.table import read_table
from espnet_smop.fileio.video import read_video
from espnet_smop.modality import AUDIO, FRAME_RATE, MODALITIES, SAMPLE_RATE
from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.projector.router import Routing
from espnet_smop.results.expert_usage import Route, Strip, Usage
from espnet_smop.results.operations import count_flops
from espnet_smop.results.phone_usage import PhoneUsage
from espnet_smop.results.phones import Alignment
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.views import View

Routed = tuple[str, str, Routing]
"""A router's name, a modality, and the routing of its tokens."""

_BATCH_SIZE = 8
_LONG = 5_765_760  # 2^7 · 3^2 · 5 · 7 · 11 · 13
"""Encoder frames of a long utterance: a multiple of every number up to 16, so that no usual
downsampling rate leaves a remainder."""


@dataclass
class RoutingPass:
    """Result of the pass.

    Attributes:
        usages: one for each router of the projector and modality; empty without routers.
        llm_usages: one for each view and layer of the LLM; empty without mixtures there.
        phone_usages: one for each router of the projector and modality, of the utterances whose
            phones are known; empty if there are none.
        strip: the requested utterance; None without routers.
        gflops: part → GFLOP per second of speech.
        utterances: number of utterances that the usages count.
    """

    usages: list[Usage] = field(default_factory=list)
    llm_usages: list[Usage] = field(default_factory=list)
    phone_usages: list[PhoneUsage] = field(default_factory=list)
    strip: Strip | None = None
    gflops: dict[str, float] = field(default_factory=dict)
    utterances: int = 0


def run_pass(
    config: Path,
    checkpoint: Path,
    data_dir: Path,
    *,
    uids: Sequence[str],
    strip_uid: str,
    flop_uids: Sequence[str],
    phones: Mapping[str, Alignment] | None = None,
    device: str = "cpu",
    view: View | None = None,
) -> RoutingPass:
    """Send clean utterances through encoders and projector, and a few of them through the LLM.

    If the LLM has mixtures of its own, all go through it.

    Args:
        config: ``config.yaml`` of the experiment.
        checkpoint: its trained parameters.
        data_dir: formatted data directory.
        uids: the utterances whose tokens are counted.
        strip_uid: the utterance that is drawn.
        flop_uids: the utterances whose operations are counted.
        phones: utterance → its phones; others are left out where phones matter.
        device: ``cpu`` or ``cuda``.
        view: task and rates; None is the model's first, and for the LLM's routers all of them.

    Raises:
        BaseModelError: a base model is missing, or is not the one that the model was trained with.
        OSError, KeyError, ValueError: data is missing or does not fit the model.
    """
    model, args = AVSRTask.load_model(str(config), str(checkpoint), device)
    if view is not None:
        model.views.restrict_to(model.views.find(view.task, view.rates))
    # The FLOP counter cannot take a view of a trained parameter as a module's input.
    model.requires_grad_(False)
    AVSRTask.set_noise(args, None)
    preprocess = AVSRTask.build_preprocess_fn(args, train=False)
    collate = AVSRTask.build_collate_fn(args, train=False)
    sources = [MODALITIES[m].source(data_dir) for m in model.views.modalities]
    data = ESPnetDataset(
        [*sources, (str(data_dir / "text"), "text", "text")],
        preprocess=preprocess,
        float_dtype="float32",
    )

    def batch_of(keys: Sequence[str]) -> dict[str, torch.Tensor]:
        _, batch = collate([data[key] for key in keys])
        return {name: value.to(device) for name, value in batch.items()}

    result = RoutingPass(utterances=len(uids))
    for start in range(0, len(uids), _BATCH_SIZE):
        keys = uids[start : start + _BATCH_SIZE]
        batch = batch_of(keys)
        routed = routings(model, batch)
        result.usages = _added(result.usages, count_usage(routed))
        if phones:
            found = phone_usage(model, routed, [phones.get(key) for key in keys])
            result.phone_usages = _added(result.phone_usages, found)
        if model.decoder.has_routers:
            result.llm_usages = _added(result.llm_usages, count_llm_usage(model, batch))
    if result.usages:
        result.strip = _strip(model, batch_of([strip_uid]), data_dir, strip_uid)
    model.views.restrict_to(model.views.find())
    result.gflops = _gflops(model, [batch_of([uid]) for uid in flop_uids])
    return result


def count_usage(routed: Sequence[Routed]) -> list[Usage]:
    """Count the choices of each router for the tokens of each modality in a batch."""
    return [
        Usage.of(router, modality, routing.indices.cpu().numpy(), routing.probs.shape[-1])
        for router, modality, routing in routed
    ]


def phone_usage(
    model: ESPnetAVSRModel, routed: Sequence[Routed], alignments: Sequence[Alignment | None]
) -> list[PhoneUsage]:
    """Return the choices of each router beside the phone classes of the tokens.

    Args:
        model: the model.
        routed: of a batch.
        alignments: of its utterances; tokens of those without are left out.
    """
    usages = []
    for router, modality, routing in routed:
        seconds = _seconds_per_token(model, modality, model.views.find())
        # (B, T)
        valid = routing.valid.unflatten(0, (len(alignments), -1))
        known = valid & torch.tensor([a is not None for a in alignments])[:, None].to(valid.device)
        classes = [
            alignment.of_tokens(int(row.sum()), seconds)
            for alignment, row in zip(alignments, valid, strict=True)
            if alignment is not None
        ]
        kept = known.flatten()
        weights = torch.zeros_like(routing.probs[kept])
        weights.scatter_(1, routing.indices[kept], routing.weights[kept].to(weights.dtype))
        weights /= weights.sum(1, keepdim=True)
        usages.append(
            PhoneUsage(
                router,
                modality,
                np.concatenate([np.zeros(0, int), *classes]),
                weights.cpu().numpy(),
            )
        )
    return usages


@torch.no_grad()
def count_llm_usage(model: ESPnetAVSRModel, batch: dict[str, torch.Tensor]) -> list[Usage]:
    """Count the choices of the LLM's mixtures in each view, layer by layer.

    The LLM reads media tokens, prompt and the reference text.
    """
    encoded = model.encode(
        *(batch.get(n) for n in ("speech", "speech_lengths", "video", "video_lengths")),
        modalities=model.views.modalities,
    )
    usages = []
    for view in model.views.all:
        projected = model.project_encoded(encoded, view)
        decoded = model.decode(projected, batch["text"], batch["text_lengths"], view)
        usages += [
            Usage.of(f"layer {n}", view.tag, r.indices.cpu().numpy(), r.probs.shape[-1])
            for n, r in enumerate(decoded.routings)
        ]
    return usages


def _added[U: (Usage, PhoneUsage)](before: Sequence[U], more: Sequence[U]) -> list[U]:
    """Add usages of the same routers, in the same order."""
    if not before:
        return list(more)
    return [usage + other for usage, other in zip(before, more, strict=True)]


@torch.no_grad()
def routings(
    model: ESPnetAVSRModel,
    batch: dict[str, torch.Tensor],
    *,
    view: View | None = None,
    allow_missing: bool = False,
) -> list[Routed]:
    """Return each router's routing of a batch; empty without routers.

    Args:
        model: the model.
        batch: preprocessed and collated utterances.
        view: task and rates; None is the model's first.
        allow_missing: accept one input where the view takes two.
    """
    projected = model.project(
        *(batch.get(n) for n in ("speech", "speech_lengths", "video", "video_lengths")),
        view=view,
        allow_missing=allow_missing,
    )
    return [
        (router, modality, routing)
        for router, by_modality in projected.routings.items()
        for modality, routing in by_modality.items()
        if routing is not None
    ]


def routes(model: ESPnetAVSRModel, routed: Sequence[Routed], view: View) -> list[Route]:
    """Return each router's choices for the tokens of one utterance.

    Args:
        model: the model.
        routed: of a batch of one, see `routings`.
        view: at whose rates.
    """
    found = []
    for router, modality, routing in routed:
        kept = routing.valid.cpu().numpy()
        found.append(
            Route(
                router,
                modality,
                routing.probs.float().cpu().numpy()[kept],
                routing.indices.cpu().numpy()[kept],
                _seconds_per_token(model, modality, view),
            )
        )
    return found


def _strip(
    model: ESPnetAVSRModel, batch: dict[str, torch.Tensor], data_dir: Path, uid: str
) -> Strip:
    # The signals as they are in the files, before the preprocessor normalises and crops them.
    speech = video = None
    if "audio" in model.views.modalities:
        speech = ESPnetDataset([AUDIO.source(data_dir)])[uid][1][AUDIO.data_name]
    if "video" in model.views.modalities:
        video = read_video(read_table(data_dir / "video.scp")[uid])
    return Strip(
        uid=uid,
        text=read_table(data_dir / "text")[uid],
        speech=speech,
        video=video,
        routes=routes(model, routings(model, batch), model.views.find()),
    )


def _seconds_per_token(model: ESPnetAVSRModel, modality: str, view: View) -> float:
    # Measured on a long utterance, where a remainder of frames at the end is negligible.
    frames = torch.tensor(_LONG)
    tokens = int(model.projector.num_tokens_at(modality, frames, view.rates))
    return _LONG / tokens / model.frontends[modality].frame_rate


def _gflops(model: ESPnetAVSRModel, batches: Sequence[dict[str, torch.Tensor]]) -> dict[str, float]:
    totals: dict[str, int] = {}
    seconds = 0.0
    for batch in batches:
        for part, flops in count_flops(model, batch).items():
            totals[part] = totals.get(part, 0) + flops
        if "speech_lengths" in batch:
            seconds += int(batch["speech_lengths"].sum()) / SAMPLE_RATE
        else:
            seconds += int(batch["video_lengths"].sum()) / FRAME_RATE
    return {part: total / seconds / 1e9 for part, total in totals.items()} if seconds else {}
