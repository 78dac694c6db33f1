"""One pass of a trained model over some utterances: who goes where, and what it computes."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from espnet2.fileio.read_text import read_2columns_text
from espnet2.train.dataset import ESPnetDataset

from espnet_smop.analysis.accounting import count_flops
from espnet_smop.analysis.strip import Route, Strip
from espnet_smop.analysis.usage import Usage
from espnet_smop.fileio.video import read_video
from espnet_smop.modality import AUDIO, FRAME_RATE, MODALITIES, SAMPLE_RATE
from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.projector.smop import Routings, SMoPProjector
from espnet_smop.tasks.avsr import AVSRTask

_BATCH_SIZE = 8


@dataclass
class RoutingPass:
    """What the pass gave.

    Attributes:
        usages: one for each router and modality; none where there are no routers.
        strip: the utterance that was asked for; None where there are no routers.
        gflops: part → GFLOP per second of speech.
        utterances: how many the usages are of.
    """

    usages: list[Usage] = field(default_factory=list)
    strip: Strip | None = None
    gflops: dict[str, float] = field(default_factory=dict)
    utterances: int = 0


@contextlib.contextmanager
def recorded(model: ESPnetAVSRModel) -> Iterator[list[Routings]]:
    """Note the routings of each forward pass in the list; none where there are no routers."""
    noted: list[Routings] = []
    if not isinstance(model.projector, SMoPProjector):
        yield noted
        return
    hook = model.projector.mixture.register_forward_hook(
        lambda module, args, output: noted.append(output[1])
    )
    try:
        yield noted
    finally:
        hook.remove()


def run_pass(
    config: Path,
    checkpoint: Path,
    data_dir: Path,
    *,
    uids: Sequence[str],
    strip_uid: str,
    flop_uids: Sequence[str],
    device: str = "cpu",
) -> RoutingPass:
    """Send clean utterances through encoders and projector, and a few of them through the LLM.

    Args:
        config: ``config.yaml`` of the experiment.
        checkpoint: its trained parameters.
        data_dir: formatted data directory.
        uids: the utterances whose tokens are counted.
        strip_uid: the utterance that is shown.
        flop_uids: the utterances whose operations are counted.
        device: ``cpu`` or ``cuda``.

    Raises:
        BaseModelError: a base model is missing or another one.
        OSError, KeyError, ValueError: data is missing or does not fit the model.
    """
    model, args = AVSRTask.load_model(str(config), str(checkpoint), device)
    args.preprocessor_conf = {**args.preprocessor_conf, "noise": None}
    preprocess = AVSRTask.build_preprocess_fn(args, train=False)
    collate = AVSRTask.build_collate_fn(args, train=False)
    sources = [MODALITIES[m].source(data_dir) for m in model.frontends]
    data = ESPnetDataset(
        [*sources, (str(data_dir / "text"), "text", "text")],
        preprocess=preprocess,
        float_dtype="float32",
    )

    def batch_of(keys: Sequence[str]) -> dict[str, torch.Tensor]:
        _, batch = collate([data[key] for key in keys])
        return {name: value.to(device) for name, value in batch.items()}

    result = RoutingPass(utterances=len(uids))
    usages: dict[tuple[str, str], Usage] = {}
    for start in range(0, len(uids), _BATCH_SIZE):
        for usage in count_usage(model, batch_of(uids[start : start + _BATCH_SIZE])):
            key = (usage.router, usage.modality)
            usages[key] = usages[key] + usage if key in usages else usage
    result.usages = list(usages.values())
    if result.usages:
        result.strip = _strip(model, batch_of([strip_uid]), data_dir, strip_uid)
    result.gflops = _gflops(model, [batch_of([uid]) for uid in flop_uids])
    return result


@torch.no_grad()
def count_usage(model: ESPnetAVSRModel, batch: dict[str, torch.Tensor]) -> list[Usage]:
    """Count the experts' tokens of a batch."""
    return [
        Usage.of(router, modality, routing.indices.cpu().numpy(), routing.probs.shape[-1])
        for router, modality, routing in _routings(model, batch)
    ]


@torch.no_grad()
def _routings(model: ESPnetAVSRModel, batch: dict[str, torch.Tensor]) -> list[tuple]:
    with recorded(model) as noted:
        model.project(
            *(batch.get(n) for n in ("speech", "speech_lengths", "video", "video_lengths"))
        )
    return [
        (router, modality, routing)
        for routings in noted
        for router, by_modality in routings.items()
        for modality, routing in by_modality.items()
        if routing is not None
    ]


def _strip(
    model: ESPnetAVSRModel, batch: dict[str, torch.Tensor], data_dir: Path, uid: str
) -> Strip:
    routes = []
    for router, modality, routing in _routings(model, batch):
        kept = routing.valid.cpu().numpy()
        frames = model.projector.stem.downsamples[modality].rate
        routes.append(
            Route(
                router,
                modality,
                routing.probs.float().cpu().numpy()[kept],
                routing.indices.cpu().numpy()[kept],
                frames / model.frontends[modality].frame_rate,
            )
        )
    # As in the files: what the preprocessor makes of them is for models to look at.
    speech = video = None
    if "audio" in model.frontends:
        speech = ESPnetDataset([AUDIO.source(data_dir)])[uid][1][AUDIO.data_name]
    if "video" in model.frontends:
        video = read_video(read_2columns_text(data_dir / "video.scp")[uid])
    return Strip(
        uid=uid,
        text=read_2columns_text(data_dir / "text")[uid],
        speech=speech,
        video=video,
        routes=routes,
        sample_rate=SAMPLE_RATE,
        video_rate=FRAME_RATE,
    )


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
