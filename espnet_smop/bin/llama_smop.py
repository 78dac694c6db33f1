#!/usr/bin/env python3
"""Import and export checkpoints of the public Llama-SMoP, Omni-AVSR, Llama-MTSK and MoME code."""

import argparse
import logging
from collections.abc import Callable, Sequence

import yaml

from espnet_smop.checkpoint.llama_smop.experiment import export_checkpoint, import_checkpoint
from espnet_smop.checkpoint.llama_smop.settings import (
    PRESETS,
    RATES,
    SEVERAL_RATES,
    TASK_WEIGHTS,
    Options,
)
from espnet_smop.command import add_output_dir, call_subcommand, run
from espnet_smop.decoder.mome import MOME, PLACES

_SHOWN = (
    "model_conf",
    "projector",
    "projector_conf",
    "decoder_conf",
    "inference_conf",
    "base_fingerprints",
)


def _numbers(number: type) -> Callable[[str], tuple]:
    """Return an argparse type for comma-separated numbers."""

    def numbers(text: str) -> tuple:
        return tuple(number(part) for part in text.split(","))

    return numbers


def import_(args: argparse.Namespace) -> None:
    r"""Turn a published checkpoint into an experiment directory.

    The checkpoint is a flat state dict (``.pth`` or ``.safetensors``) that includes the base
    models' weights, which are compared with those of the given base models. The experiment can
    then be decoded, scored, packed and trained further like any other. Settings are derived from
    the weights' shapes; where these do not determine one, the published models' value is used.

    Example::

        python -m espnet_smop.bin.llama_smop import --checkpoint llama_smop.pth \
            --llm meta-llama/Llama-3.2-1B --whisper openai/whisper-medium.en \
            --avhubert downloads/avhubert_large_lrs3_vox --audio_rate 4 --video_rate 2 \
            --out exp/avsr_llama_smop
    """
    files = ("checkpoint", "llm", "whisper", "avhubert", "tokenizer", "out")
    options = {name: getattr(args, name) for name in Options.__dataclass_fields__}
    config = import_checkpoint(
        **{name: getattr(args, name) for name in files}, options=Options(**options)
    )
    print(yaml.safe_dump({k: config[k] for k in _SHOWN}, sort_keys=False, allow_unicode=True))
    print(f"imported: {args.out}")


def export(args: argparse.Namespace) -> None:
    r"""Write an imported model's trained weights into a checkpoint with the public code's names.

    The model may have been trained further. All other weights are taken from the checkpoint that
    it was imported from.

    Example::

        python -m espnet_smop.bin.llama_smop export --exp_dir exp/avsr_llama_smop \
            --avsr_model_file valid.acc.ave.pth --original llama_smop.pth \
            --out exp/llama_smop_further.pth
    """
    count = export_checkpoint(args.exp, args.avsr_model_file, args.original, args.out)
    print(f"{args.out}: {count} tensors")


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", required=True, help="The published file")
    parser.add_argument("--llm", required=True, help="Directory or hub id of the LLM")
    parser.add_argument(
        "--whisper", help="Directory or hub id of Whisper (required if the model takes audio)"
    )
    parser.add_argument(
        "--avhubert",
        help="Directory of the converted AV-HuBERT (required if the model takes video)",
    )
    parser.add_argument(
        "--tokenizer", help="Directory or hub id of the tokenizer (default: the LLM's)"
    )
    add_output_dir(parser, "Experiment directory to create")
    group = parser.add_argument_group("The public code's options")
    group.add_argument("--rank", type=int, help="LoRA's reduction factor (default: from shapes)")
    group.add_argument("--alpha", type=float, default=4, help="LoRA's scale is alpha / rank")
    group.add_argument("--num_experts", type=int, help="Experts (default: from shapes)")
    group.add_argument("--top_k", type=int, default=2, help="Experts per token")
    for modality, rate in RATES.items():
        group.add_argument(
            f"--{modality}_rate",
            type=_numbers(int),
            help=f"{modality.capitalize()} frames per token; for several rates, all of them, e.g. "
            f"{','.join(map(str, SEVERAL_RATES[modality]))} (default: from shapes if frames were "
            f"stacked, else {rate}, or for several rates those of the example)",
        )
    group.add_argument(
        "--task_weights",
        type=_numbers(float),
        default=TASK_WEIGHTS,
        help="Loss weights of ASR, VSR and AVSR in a model of several tasks "
        f"(default: {','.join(map(str, TASK_WEIGHTS))})",
    )
    group.add_argument(
        "--downsample",
        choices=("avgpool", "stack"),
        help="How frames become tokens (default: stack if the projectors' inputs are wider than "
        "the encoders' outputs)",
    )
    group.add_argument(
        "--mome_top_k",
        type=_numbers(int),
        default=(MOME["top_k"],),
        help="Experts per token of MoME's mixtures of adapters, or a number per pair of rates "
        f"(default: {MOME['top_k']})",
    )
    group.add_argument(
        "--mome_place",
        choices=tuple(PLACES),
        default=MOME["place"],
        help=f"Where MoME's mixtures of adapters are in each layer (default: {MOME['place']})",
    )
    group.add_argument("--prompt", help="Instruction to the LLM (default: the papers')")
    group.add_argument(
        "--preset",
        choices=PRESETS,
        default="reference",
        help="reference reproduces the public code exactly for a single utterance; none pads "
        "Whisper's input to the utterance instead of 30 s, drops no frames (faster), and uses this "
        "project's beam search settings",
    )


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--exp_dir", "--exp", dest="exp", required=True, help="Experiment directory"
    )
    parser.add_argument("--avsr_model_file", default="valid.acc.ave.pth", help="Checkpoint in it")
    parser.add_argument("--original", required=True, help="The checkpoint that was imported")
    parser.add_argument("--out", required=True, help="The flat state dict to write")


COMMANDS = [("import", _import_arguments, import_), ("export", _export_arguments, export)]


def main(cmd: Sequence[str] | None = None) -> int | None:
    """Run the subcommand that the command line names."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    return call_subcommand(cmd, name="llama_smop", description=__doc__, commands=COMMANDS)


if __name__ == "__main__":
    run(main)
