"""Checks which settings a resumed training changes."""

import argparse
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from espnet_smop.config import flatten
from espnet_smop.text_table import text_table
from espnet_smop.train.watch import DUMP

_MODEL = (
    "audio_frontend", "audio_frontend_conf", "video_frontend", "video_frontend_conf",
    "projector", "projector_conf", "decoder", "decoder_conf", "model_conf",
)  # fmt: skip
# Model settings that say where a base model is (its fingerprint is compared) and how it runs.
_NOT_OF_THE_CHECKPOINT = {
    "model", "tokenizer", "gguf_file", "dtype", "compile", "gradient_checkpointing",
    "chunk_seconds", "attn_implementation", "dispatch",
}  # fmt: skip
# Settings of machine and logging, and those that the task fills in or others use.
_NOT_COMPARED = {
    "allow_changed_config", "base_fingerprints", "config", "dry_run", "inference_conf",
    "init_param", "local_rank", "log_interval", "log_level", "multiprocessing_distributed", "ngpu",
    "nonfinite_patience", "num_att_plot", "num_workers", "output_dir", "pretrain_path",
    "print_config", "required", "resume", "use_matplotlib", "use_tensorboard", "version",
}  # fmt: skip
_PROMPT = "decoder_conf.prompt"  # or one for each task; the task fills it in
_NOT_COMPARED_PREFIXES = ("dist", "wandb_", "use_wandb", "cudnn_")


IMPORTED = "imported.pth"
"""Weights that ``llama_smop import`` writes."""


class ChangedConfigError(ValueError):
    """An experiment's directory holds another model or training; the message says which."""


def check_resumed_config(
    args: argparse.Namespace, defaults: Mapping[str, Mapping[str, Any]]
) -> None:
    """Compare a training's arguments with the config of the experiment to resume.

    Nothing is compared before the first epoch has ended: there is no checkpoint to protect. A
    directory with an imported model has nothing to resume and is refused. A default that only one
    of the configs states is not a difference.

    Args:
        args: of the training; ``allow_changed_config`` accepts changes that leave the model as
            it is.
        defaults: ``*_conf`` → defaults of its options.

    Raises:
        ChangedConfigError: the checkpoints are of another model, or other settings changed and are
            not accepted.
    """
    directory = Path(args.output_dir)
    config = directory / "config.yaml"
    if not _has_checkpoints(directory):
        return
    if not (directory / "checkpoint.pth").exists() and (directory / IMPORTED).exists():
        raise ChangedConfigError(
            f"{directory} holds an imported model. Train elsewhere (--avsr_tag NAME) from its "
            f"weights: --init_param {directory / IMPORTED} (run.sh: --pretrained_model)"
        )
    before = yaml.safe_load(config.read_text(encoding="utf-8"))
    changes = list(_changes(before, vars(args), defaults))
    of_model = [c for c in changes if c[0].split(".")[0] in _MODEL and not _is_place(c[0])]
    if of_model:
        listed = "; ".join(f"{name} is {new}, was {old}" for name, old, new in of_model)
        raise ChangedConfigError(
            f"{directory} holds the training of another model: {listed}. Train this one elsewhere "
            "(--avsr_tag NAME)"
        )
    if not changes:
        return
    table = text_table(("setting", "before", "now"), changes)
    if not args.allow_changed_config:
        raise ChangedConfigError(
            f"{directory} was trained with other settings. Train elsewhere (--avsr_tag NAME), or "
            "resume with --allow_changed_config true (run.sh: --avsr_args "
            f"'--allow_changed_config true'):\n{table}"
        )
    logging.warning("resuming with changed settings:\n%s", table)


def trained_fingerprints(directory: Path) -> dict[str, str]:
    """Return the fingerprints of an experiment's base models; empty if nothing is to be resumed."""
    if not _has_checkpoints(directory):
        return {}
    config = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
    return config.get("base_fingerprints") or {}


def _has_checkpoints(directory: Path) -> bool:
    checkpoints = [path for path in directory.glob("*.pth") if path.name != DUMP]
    return (directory / "config.yaml").is_file() and bool(checkpoints)


def _is_place(name: str) -> bool:
    return name.split(".")[-1] in _NOT_OF_THE_CHECKPOINT


def _changes(
    before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, str, str]]:
    """Yield name, old and new value of each difference. New settings have no old value."""
    for key in sorted(before.keys() & now.keys()):
        if key in _NOT_COMPARED or key.startswith(_NOT_COMPARED_PREFIXES):
            continue
        kind = key.removesuffix("_conf")
        # Another class has other options.
        known = defaults.get(key, {}) if before.get(kind) == now.get(kind) else {}
        old, new = (flatten(_effective(config[key], known), key) for config in (before, now))
        if not any(name.startswith(_PROMPT) and new[name] is not None for name in new):
            old = {name: value for name, value in old.items() if not name.startswith(_PROMPT)}
        for name in sorted(old.keys() | new.keys()):
            # A setting that an earlier version did not have is null.
            if old.get(name) != new.get(name):
                yield name, str(old.get(name, "none")), str(new.get(name, "none"))


def _effective(value: Any, defaults: Any) -> Any:
    """Return settings with the defaults of what they leave out, to any depth."""
    if not isinstance(value, Mapping) or not isinstance(defaults, Mapping):
        return value
    return {**defaults, **{k: _effective(v, defaults.get(k)) for k, v in value.items()}}
