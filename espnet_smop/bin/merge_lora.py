#!/usr/bin/env python3
r"""Write the LLM of an experiment as a plain Hugging Face directory, with its adapters merged.

The directory holds weights, configuration and tokenizer. It loads with ``from_pretrained``, or as
``decoder_conf: {model: DIR, lora: null}``. Delimiters and tokens added to the vocabulary are not
part of the LLM and stay in the experiment's checkpoint.

Example::

    python -m espnet_smop.bin.merge_lora --config exp/avsr_train_avsr_smop3_dedr/config.yaml \
        --model_file exp/avsr_train_avsr_smop3_dedr/valid.acc.ave.pth --output_dir exp/merged_llm
"""

import argparse
from collections.abc import Sequence
from contextlib import nullcontext

from espnet_smop.checkpoint.merged_llm import load_decoder, write_merged
from espnet_smop.command import CommandParser, add_output_dir, rates, run
from espnet_smop.fileio.atomic import check_replaceable
from espnet_smop.views import TASKS, View


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = CommandParser(
        prog="python -m espnet_smop.bin.merge_lora",
        description=__doc__,
    )
    parser.add_argument("--config", required=True, help="The experiment's config.yaml")
    parser.add_argument("--model_file", required=True, help="A checkpoint, such as EXP/5epoch.pth")
    add_output_dir(parser, "Directory to write; a model in it is replaced")
    parser.add_argument("--task", choices=tuple(TASKS), help="Task to merge, if LoRA is per task")
    parser.add_argument(
        "--rates",
        type=rates,
        default={},
        help="Rates to merge, if LoRA is per rates, e.g. audio=16,video=5",
    )
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Merge what the command line names."""
    args = get_parser().parse_args(cmd)
    check_replaceable(args.out, "config.json")
    decoder = load_decoder(args.config, args.model_file)
    if decoder.needs_view and args.task is None:
        raise ValueError(f"{args.config} has LoRA per task or rates: give --task and --rates")
    with decoder.active(View(args.task, args.rates)) if decoder.needs_view else nullcontext():
        write_merged(decoder, args.out)
    print(f"{args.out}: {args.model_file} merged into {decoder.llm.config.name_or_path}")


if __name__ == "__main__":
    run(main)
