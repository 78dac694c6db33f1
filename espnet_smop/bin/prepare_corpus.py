"""Write the Kaldi data directories of a corpus's training, validation and test set.

Each holds ``wav.scp`` and ``video.scp`` (or one of them), ``text``, ``utt2spk``,
``spk2utt``, optionally ``landmarks.scp`` and ``segments``, and ``prepare.txt``, a list of the clips
that were left out.

COMMAND names the corpus's layout on disk, or a reader of your own as ``module:Class``.
"""

import argparse
import functools
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.command import Subcommand, add_output_dir, call_subcommand, run, str2bool
from espnet_smop.corpus.prepare import check_ids, summary, write_set
from espnet_smop.corpus.readers import READERS, CorpusReader, corpus_dir, reader_class
from espnet_smop.corpus.readers.any_lrs3 import AnyLRS3Reader
from espnet_smop.corpus.splits import split
from espnet_smop.corpus.utterance import CorpusError


def _add_arguments(reader: type[CorpusReader], parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", required=True, help="the corpus directory")
    add_output_dir(parser, "parent directory of the sets", default=Path("data"), required=False)
    parser.add_argument(
        "--extra_train",
        nargs="+",
        default=[],
        metavar="DIR",
        help="further corpora, in any layout of LRS3, whose clips join the training set (such as "
        "VoxCeleb2 with pseudo-labels, prepared by auto_avsr)",
    )
    parser.add_argument("--train_set", default="train", help="name of the training set")
    parser.add_argument(
        "--pretrain_set",
        help="name of a separate set for the utterances of the pretrain part, for pretraining "
        "encoders that must not see the training set",
    )
    parser.add_argument("--valid_set", default="valid", help="name of the validation set")
    parser.add_argument("--test_set", default="test", help="name of the test set")
    parser.add_argument(
        "--valid_share",
        type=float,
        default=0.04,
        help="share of the training clips used for validation, if the corpus has no validation "
        "set: whole speakers, chosen by a hash of their names and left out of training",
    )
    parser.add_argument(
        "--valid_list",
        type=Path,
        help="file that lists the validation clips, one per line; replaces --valid_share. A line "
        "is a clip's path below the corpus directory (as in AV-HuBERT's lrs3-valid.id), an id, or "
        "a speaker",
    )
    parser.add_argument(
        "--test_share",
        type=float,
        default=0.0,
        help="share of the clips for the test set, if the corpus has none, chosen in the same way",
    )
    parser.add_argument(
        "--test_list", type=Path, help="file that lists the test clips, in the form of --valid_list"
    )
    parser.add_argument(
        "--allow_broken",
        type=str2bool,
        default=False,
        help="skip test clips without text or file; otherwise they are an error",
    )
    reader.add_arguments(parser)


def prepare(reader: type[CorpusReader], args: argparse.Namespace) -> None:
    """Read a corpus, split it into sets and write them."""
    names = inspect.signature(reader).parameters
    if unknown := [name for name in names if not hasattr(args, name)]:
        raise CorpusError(
            f"{reader.__name__} takes '{unknown[0]}', which its add_arguments does not add as an "
            "option"
        )
    options = {name: getattr(args, name) for name in names}
    corpus = reader(**options).read(corpus_dir(args.root))
    print(f"{args.root}: {corpus.form}")
    corpus = split(
        corpus,
        args.root,
        valid_share=args.valid_share,
        valid_list=args.valid_list,
        test_share=args.test_share,
        test_list=args.test_list,
        allow_broken=args.allow_broken,
    )
    train, train_problems = corpus.train, corpus.train_problems
    for directory in args.extra_train:
        extra = AnyLRS3Reader(max_seconds=options.get("max_seconds", 16.0)).read(
            corpus_dir(directory)
        )
        print(f"{directory}: {extra.form}: {len(extra.train)} more training utterances")
        train = [*train, *extra.train, *(extra.valid or ())]
        train_problems = [*train_problems, *extra.train_problems]
    check_ids([*train, *corpus.valid, *corpus.test])
    sets = []
    if args.pretrain_set:
        sets.append((args.pretrain_set, [u for u in train if u.is_pretrain], ()))
        train = [u for u in train if not u.is_pretrain]
    for name, utterances, problems in [
        *sets,
        (args.train_set, train, train_problems),
        (args.valid_set, corpus.valid, ()),
        (args.test_set, corpus.test, corpus.test_problems),
    ]:
        write_set(args.out / name, utterances, problems)
        print(f"{args.out / name}: {summary(utterances, problems)}")
    for problem in train_problems[:10]:
        print(f"  left out: {problem}")


def _subcommand(name: str) -> Subcommand:
    reader = reader_class(name)
    function = functools.partial(prepare, reader)
    # The class's own: inspect.getdoc would fall back to the interface's.
    function.__doc__ = inspect.cleandoc(reader.__doc__ or "A reader without a docstring.")
    return name, functools.partial(_add_arguments, reader), function


def main(cmd: Sequence[str] | None = None) -> int | None:
    """Prepare a corpus."""
    cmd = sys.argv[1:] if cmd is None else cmd
    own = [name for name in cmd[:1] if ":" in name]
    commands = [_subcommand(name) for name in [*READERS, *own]]
    return call_subcommand(cmd, name="prepare_corpus", description=__doc__, commands=commands)


if __name__ == "__main__":
    run(main)
