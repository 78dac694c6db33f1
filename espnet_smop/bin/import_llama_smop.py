#!/usr/bin/env python3
"""Turn a published Llama-SMoP or Llama-AVSR checkpoint into an experiment directory.

The checkpoint is a flat state dict (``.pth``, or ``.safetensors``) with the bases' weights in it.
These are compared with the bases given. The experiment is then decoded, scored, packed and trained
further like any other. Settings are read off the weights' shapes; what they do not tell has the
published models' value.

Example::

    python -m espnet_smop.bin.import_llama_smop --checkpoint llama_smop.pth \
        --llm meta-llama/Llama-3.2-1B --whisper openai/whisper-medium.en \
        --avhubert downloads/avhubert_large_lrs3_vox --audio_rate 4 --video_rate 2 \
        --out exp/avsr_llama_smop
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from espnet_smop.base_model import BaseModelError
from espnet_smop.checkpoint.llama_smop import build, read_state
from espnet_smop.checkpoint.llama_smop_settings import (
    PRESETS,
    RATES,
    CheckpointError,
    Options,
    infer_config,
)
from espnet_smop.fileio.atomic import atomic_directory

MODEL_FILE = "imported.pth"
# What the recipe's stages take by default.
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
    """Write the experiment of a published checkpoint.

    Args:
        checkpoint: the flat state dict.
        out: directory to make: ``config.yaml`` and the trained weights.
        llm: directory or hub id of the LLM; others likewise.
        whisper: of the Whisper model.
        avhubert: of the AV-HuBERT.
        tokenizer: of the tokenizer, if it is not beside the LLM.
        options: what the weights do not tell.

    Returns:
        The experiment's config.

    Raises:
        CheckpointError: it is not such a checkpoint, or it contradicts options or bases.
        BaseModelError: a base model cannot be loaded.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} is there already: remove it or choose another --out")
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
        torch.save(model.state_dict(), directory / MODEL_FILE)
        (directory / _LINK).symlink_to(MODEL_FILE)
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        (directory / "config.yaml").write_text(text, encoding="utf-8")
    return config


def _absolute(model: str | None) -> str | None:
    """Make a local directory findable from anywhere; leave a hub id as it is."""
    if model is not None and Path(model).expanduser().exists():
        return str(Path(model).expanduser().resolve())
    return model


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = argparse.ArgumentParser(
        prog="python -m espnet_smop.bin.import_llama_smop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, help="The published file")
    parser.add_argument("--llm", required=True, help="Directory or hub id of the LLM")
    parser.add_argument("--whisper", help="Of the Whisper model, if audio is an input")
    parser.add_argument("--avhubert", help="Of the converted AV-HuBERT, if video is an input")
    parser.add_argument("--tokenizer", help="Of the tokenizer, if not beside the LLM")
    parser.add_argument("--out", required=True, help="Experiment directory to make")
    group = parser.add_argument_group("The public code's options")
    group.add_argument("--rank", type=int, help="LoRA's reduction factor (default: from shapes)")
    group.add_argument("--alpha", type=float, default=4, help="LoRA's scale is alpha / rank (4)")
    group.add_argument("--num_experts", type=int, help="Experts (default: from shapes)")
    group.add_argument("--top_k", type=int, default=2, help="Experts per token (default 2)")
    for modality, rate in RATES.items():
        group.add_argument(
            f"--{modality}_rate",
            type=int,
            help=f"{modality.capitalize()} frames per token (default: from shapes if frames were "
            f"stacked, else {rate})",
        )
    group.add_argument(
        "--downsample", choices=("avgpool", "stack"), help="Default: from shapes (avgpool if equal)"
    )
    group.add_argument("--prompt", help="Instruction to the LLM (default: the papers')")
    group.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default="reference",
        help="reference computes for one utterance exactly what the public code does; none pads "
        "Whisper's input to the utterance instead of 30 s, drops no frames (faster), and has this "
        "project's settings of the beam search",
    )
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Import what the command line names."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    args = vars(get_parser().parse_args(cmd))
    files = ("checkpoint", "llm", "whisper", "avhubert", "tokenizer", "out")
    files = {name: args.pop(name) for name in files}
    try:
        config = import_checkpoint(**files, options=Options(**args))
    except (CheckpointError, BaseModelError, ValueError, OSError) as e:
        sys.exit(f"import_llama_smop: {e}")
    shown = ("projector", "projector_conf", "decoder_conf", "inference_conf", "base_fingerprints")
    print(yaml.safe_dump({k: config[k] for k in shown}, sort_keys=False, allow_unicode=True))
    print(f"{files['out']}: config.yaml, {MODEL_FILE} ({_LINK})")


if __name__ == "__main__":
    main()
