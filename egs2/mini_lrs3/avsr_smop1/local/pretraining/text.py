#!/usr/bin/env python3
"""Write the sentences that the tokenizer and the Llama are pretrained on.

They are drawn from the half of the grammar's sentences reserved for base models. Lines are
``ID sentence``.

Example::

    PYTHONPATH=local python -m pretraining.text --train train.txt --valid valid.txt
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np

from espnet_smop.command import CommandHelp, run
from espnet_smop.fileio.atomic import atomic_write
from talking_face import grammar


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=CommandHelp)
    parser.add_argument("--train", type=Path, required=True, help="file of the training text")
    parser.add_argument("--valid", type=Path, required=True, help="file of the validation text")
    parser.add_argument("--count", type=int, default=40000, help="training sentences")
    parser.add_argument("--valid_count", type=int, default=1000, help="validation sentences")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(cmd)
    rng = np.random.default_rng([args.seed, crc32(b"text")])
    drawn = grammar.sentences(rng, args.count + args.valid_count, pretraining=True)
    for path, sentences in ((args.train, drawn[: args.count]), (args.valid, drawn[args.count :])):
        with atomic_write(path) as file:
            file.writelines(f"{i:06d} {sentence}\n" for i, sentence in enumerate(sentences))


if __name__ == "__main__":
    run(main)
