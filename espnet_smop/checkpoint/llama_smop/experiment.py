"""Import of published checkpoints as experiment directories, and export back to checkpoints."""

from pathlib import Path
from typing import Any

import torch
import yaml

from espnet_smop.checkpoint.llama_smop.names import CheckpointError
from espnet_smop.checkpoint.llama_smop.settings import Options, infer_config
from espnet_smop.checkpoint.llama_smop.weights import build, read_state, write_back
from espnet_smop.fileio.atomic import atomic_directory, atomic_path
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.train.resume import IMPORTED

# The checkpoint that the recipe's stages use by default.
_LINK = "valid.acc.ave.pth"


def import_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    *,
    llm: str,
    whisper: str | None = None,
    avhubert: str | None = None,
    tokenizer: str | None = None,
    options: Options | None = None,
) -> dict[str, Any]:
    """Write the experiment directory of a published checkpoint, with ``config.yaml`` and weights.

    Args:
        checkpoint: the flat state dict.
        out: directory to create.
        llm: directory or hub id of the LLM.
        whisper: directory or hub id of the Whisper model, if the checkpoint has an audio encoder.
        avhubert: directory or hub id of AV-HuBERT, if the checkpoint has a video encoder.
        tokenizer: its directory or hub id; None is the LLM's.
        options: settings that the weights do not determine; None is the published models'.

    Returns:
        The experiment's config.

    Raises:
        CheckpointError: not a checkpoint of this kind, or it contradicts the options or bases.
        BaseModelError: a base model cannot be loaded.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} exists already: remove it or choose another --out")
    state = read_state(checkpoint)
    config = infer_config(
        state,
        llm=_absolute(llm),
        whisper=_absolute(whisper),
        avhubert=_absolute(avhubert),
        tokenizer=_absolute(tokenizer),
        options=options or Options(),
    )
    model, config["base_fingerprints"] = build(state, config)
    with atomic_directory(out) as directory:
        torch.save(model.state_dict(), directory / IMPORTED)
        (directory / _LINK).symlink_to(IMPORTED)
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        (directory / "config.yaml").write_text(text, encoding="utf-8")
    return config


def _absolute(model: str | None) -> str | None:
    """Make the path of a local directory absolute; return a hub id unchanged."""
    if model is not None and Path(model).expanduser().exists():
        return str(Path(model).expanduser().resolve())
    return model


def export_checkpoint(
    experiment: str | Path, model_file: str, original: str | Path, out: str | Path
) -> int:
    """Write an imported, possibly further trained model under the public names.

    Args:
        experiment: directory with ``config.yaml``.
        model_file: checkpoint in it.
        original: the checkpoint that was imported; everything but the trained weights is taken
            from it.
        out: flat state dict to write.

    Returns:
        The number of weights.

    Raises:
        CheckpointError: the two models differ in architecture.
    """
    experiment = Path(experiment)
    model, _ = AVSRTask.load_model(str(experiment / "config.yaml"), str(experiment / model_file))
    state = write_back(model, read_state(original))
    with atomic_path(out) as partial:
        torch.save(state, partial)
    return len(state)
