"""Checks of a training config without weights, data or GPU.

The config is read as training reads it, its model is built on the meta device with the real sizes
of the base models that it names (`espnet_smop.skeleton`), then its optimizer and schedule.
"""

import argparse
import dataclasses
from collections.abc import Iterable
from pathlib import Path

import torch
from espnet2.tasks.abs_task import scheduler_classes
from huggingface_hub import get_token, try_to_load_from_cache

from espnet_smop.experiments.memory import activation_bytes, frozen_bytes
from espnet_smop.modality import FRAME_RATE
from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.skeleton import use_skeletons
from espnet_smop.tasks.avsr import TOKENS, AVSRTask, trained_table

# Per trained float32 parameter: itself, its gradient, and AdamW's two moments.
_BYTES_TRAINED = 16
_GATED = "meta-llama/"


class DryRunError(ValueError):
    """A config cannot be trained; the message says why."""


@dataclasses.dataclass(frozen=True)
class DryRun:
    """The training that a config describes.

    Attributes:
        bases: part → base model.
        table: parameters of each module and how many of them are trained.
        trained: trained parameters.
        frozen: parameters of the base models.
        frozen_bytes: their memory.
        frames_per_batch: maximum video frames per batch, over all GPUs, padding included.
        accum_grad: batches per optimizer step.
        max_epoch: ESPnet's epochs.
        steps: optimizer steps of the whole training.
        activation_bytes: estimated memory of a batch's activations on each GPU; None if unknown.
    """

    bases: dict[str, str]
    table: str
    trained: int
    frozen: int
    frozen_bytes: int
    frames_per_batch: int
    accum_grad: int
    max_epoch: int
    steps: int
    activation_bytes: int | None

    @property
    def frames_per_step(self) -> int:
        """Maximum video frames per optimizer step."""
        return self.frames_per_batch * self.accum_grad

    @property
    def hours_of_speech(self) -> float:
        """Hours of speech that training goes through, repetitions included."""
        return self.steps * self.frames_per_step / FRAME_RATE / 3600

    @property
    def state_bytes(self) -> int:
        """Memory of weights, gradients and optimizer states."""
        return self.frozen_bytes + self.trained * _BYTES_TRAINED

    def training_hours(self, throughput: float) -> float:
        """Return the hours of training at a throughput in hours of speech per hour."""
        return self.hours_of_speech / throughput

    def __str__(self) -> str:
        table = "\n".join(f"    {line}" for line in self.table.splitlines())
        return (
            f"  bases     {', '.join(self.bases.values())}\n"
            f"  trained   {self.trained:,} of {self.trained + self.frozen:,} parameters\n"
            f"{table}\n"
            f"  memory    {self.state_bytes / 2**30:.1f} GiB of weights, gradients and optimizer "
            f"states on each GPU, and {_gib(self.activation_bytes)} of activations (estimate)\n"
            f"  a step    {self.frames_per_step:,} frames: {self.frames_per_batch:,} a batch "
            f"x accum_grad {self.accum_grad}\n"
            f"  training  {self.max_epoch} epochs, {self.steps:,} steps, "
            f"{self.hours_of_speech:,.0f} hours of speech"
        )


def _gib(size: int | None) -> str:
    return "an unknown amount" if size is None else f"{size / 2**30:.1f} GiB"


def dry_run(config: Path, skeletons: Path, *, gpus: int = 1) -> DryRun:
    """Check a training config and describe the training.

    Args:
        config: the training config.
        skeletons: directory for the base models' skeletons; existing ones are reused.
        gpus: number that the config's batch is divided among.

    Raises:
        DryRunError: the config, its model, optimizer or schedule is wrong.
        BaseModelError: the sizes of a base model are unknown.
    """
    try:
        args = AVSRTask.get_parser().parse_args(["--config", str(config)])
    except SystemExit:
        raise DryRunError(f"{config}: training would refuse it, see above") from None
    bases = use_skeletons(args, skeletons)
    try:
        AVSRTask.build_preprocess_fn(args, train=True)
        with torch.device("meta"):
            model = AVSRTask.build_model(args)
        (optimizer,) = AVSRTask.build_optimizers(args, model=model)
        if args.scheduler is not None:
            scheduler_classes[args.scheduler](optimizer, **args.scheduler_conf)
    except (TypeError, ValueError, KeyError) as e:
        raise DryRunError(f"{config}: {e}") from e
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return DryRun(
        bases=bases,
        table=trained_table(model),
        trained=trained,
        frozen=sum(p.numel() for p in model.parameters()) - trained,
        frozen_bytes=frozen_bytes(model, quantize=args.decoder_conf.get("quantize")),
        frames_per_batch=_frames(config, args),
        accum_grad=args.accum_grad,
        max_epoch=args.max_epoch,
        steps=_steps(config, args),
        activation_bytes=_activation_bytes(args, model, gpus),
    )


def what_is_missing(bases: Iterable[str]) -> list[str]:
    """Return the requirements of these base models that this machine lacks.

    Args:
        bases: directories and hub ids. The hub is not asked: a gated model needs a token, unless
            it has been fetched.

    Returns:
        Any of ``AV-HuBERT``, ``token`` and ``GPU``.
    """
    lacking = []
    for model in bases:
        if Path(model).expanduser().is_dir():
            continue
        if Path(model).name.startswith("avhubert"):
            lacking.append("AV-HuBERT")
        elif model.startswith(_GATED) and not (
            isinstance(try_to_load_from_cache(model, "config.json"), str) or get_token()
        ):
            lacking.append("token")
    if not torch.cuda.is_available():
        lacking.append("GPU")
    return lacking


def _activation_bytes(args: argparse.Namespace, model: ESPnetAVSRModel, gpus: int) -> int | None:
    if args.batch_type != TOKENS:
        return None  # the LLM's positions are not limited
    return activation_bytes(
        model,
        positions=args.batch_bins // gpus,
        text=args.batch_limits.get("text", args.batch_bins) // gpus,
        frames=args.batch_limits["frames"] // gpus,
        recompute=bool(args.decoder_conf.get("gradient_checkpointing")),
    )


def _frames(config: Path, args: argparse.Namespace) -> int:
    if args.batch_type == "numel":
        return args.batch_bins
    if args.batch_type != TOKENS or "frames" not in args.batch_limits:
        raise DryRunError(
            f"{config}: the frames of a step are known only with batch_type: tokens and "
            "batch_limits.frames, or batch_type: numel"
        )
    return args.batch_limits["frames"]


def _steps(config: Path, args: argparse.Namespace) -> int:
    if args.num_iters_per_epoch is None:
        raise DryRunError(f"{config}: steps can be counted only with num_iters_per_epoch")
    # Batches left over at an epoch's end count for the next one's first step.
    steps = args.max_epoch * (args.num_iters_per_epoch // args.accum_grad)
    cycle = args.scheduler_conf.get("first_cycle_steps", steps)
    if cycle != steps:
        raise DryRunError(
            f"{config}: scheduler_conf.first_cycle_steps is {cycle}, but max_epoch x "
            f"(num_iters_per_epoch // accum_grad) is {steps}: the learning rate would not fall to "
            "its minimum at the end of training"
        )
    return steps
