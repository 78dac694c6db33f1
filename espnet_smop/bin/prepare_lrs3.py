"""Write the Kaldi data directories of LRS3's training, validation and test set.

Each holds ``wav.scp video.scp landmarks.scp segments text utt2spk spk2utt``, and ``prepare.txt``,
which says which clips were left out.

Example::

    python -m espnet_smop.bin.prepare_lrs3 --lrs3 downloads/mini_lrs3 --out_dir data
"""

import argparse
import sys
from pathlib import Path

from espnet_smop.command import CommandHelp
from espnet_smop.corpus.forms import read_corpus
from espnet_smop.corpus.lrs3 import PARTS
from espnet_smop.corpus.prepare import check_ids, left_out, summary, write_set
from espnet_smop.corpus.utterance import CorpusError
from espnet_smop.corpus.validation import split_by_list, split_by_speaker


def get_parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m espnet_smop.bin.prepare_lrs3",
        description=__doc__,
        formatter_class=CommandHelp,
    )
    parser.add_argument(
        "--lrs3",
        required=True,
        help="LRS3's directory: as distributed, or as prepared by auto_avsr or AV-HuBERT",
    )
    parser.add_argument("--out_dir", type=Path, default=Path("data"), help="where the sets go")
    parser.add_argument(
        "--train_parts",
        nargs="+",
        choices=PARTS[:2],
        default=["pretrain", "trainval"],
        help="what the training set is made of: both parts are 433 h, trainval alone is 30 h",
    )
    parser.add_argument(
        "--extra_train",
        nargs="+",
        default=[],
        metavar="DIR",
        help="further corpora, in any of these forms, whose clips join the training set (such as "
        "VoxCeleb2 with pseudo-labels, prepared by auto_avsr)",
    )
    parser.add_argument("--train_set", default="train", help="name of the training set")
    parser.add_argument(
        "--pretrain_set",
        help="name of a set of their own for the training utterances of the part pretrain, from "
        "which encoders may be pretrained that shall not know the training set",
    )
    parser.add_argument("--valid_set", default="valid", help="name of the validation set")
    parser.add_argument("--test_set", default="test", help="name of the test set")
    parser.add_argument(
        "--max_seconds",
        type=float,
        default=16.0,
        help="clips of pretrain that last longer are cut at word times (24 is in use as well)",
    )
    parser.add_argument(
        "--valid_share",
        type=float,
        default=0.04,
        help="share of the training clips that validate: whole speakers, whose other clips are "
        "left out of training, chosen by a hash of their names",
    )
    parser.add_argument(
        "--valid_list",
        type=Path,
        help="file of what validates instead, one a line: trainval/<speaker>/<clip> "
        "(AV-HuBERT's lrs3-valid.id), an id, or a speaker",
    )
    parser.add_argument(
        "--landmarks_dir",
        type=Path,
        help="landmark files in LRS3's layout (.npy, .npz or .pkl); default: beside the clips",
    )
    parser.add_argument(
        "--allow_broken",
        action="store_true",
        help="let the test set lose clips without text or file; otherwise they are an error",
    )
    return parser


def main(cmd: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    args = get_parser().parse_args(cmd)
    try:
        _prepare(args)
    except CorpusError as e:
        sys.exit(f"prepare_lrs3: {e}")
    return 0


def _prepare(args: argparse.Namespace) -> None:
    corpus = read_corpus(
        args.lrs3,
        parts=args.train_parts,
        max_seconds=args.max_seconds,
        landmarks_dir=args.landmarks_dir,
    )
    print(f"{args.lrs3}: {corpus.form}")
    if not (corpus.test or corpus.test_problems):
        raise CorpusError(f"{args.lrs3}: holds no test clips; prepare LRS3's part test as well")
    if corpus.test_problems and not args.allow_broken:
        raise CorpusError(
            f"the test set would lose {len(corpus.test_problems)} clips: "
            f"{'; '.join(left_out(corpus.test_problems))}. Repair them, or accept their loss by "
            "--allow_broken"
        )
    if args.valid_list:
        train, valid = split_by_list(
            [*corpus.train, *(corpus.valid or ())], _lines(args.valid_list)
        )
    elif corpus.valid:
        train, valid = corpus.train, corpus.valid
    else:
        train, valid = split_by_speaker(corpus.train, args.valid_share)
    train_problems = corpus.train_problems
    for directory in args.extra_train:
        extra = read_corpus(
            directory, parts=None, max_seconds=args.max_seconds, option="--extra_train"
        )
        print(f"{directory}: {extra.form}: {len(extra.train)} training utterances more")
        train = [*train, *extra.train, *(extra.valid or ())]
        train_problems = {**train_problems, **extra.train_problems}
    check_ids([*train, *valid, *corpus.test])
    sets = []
    if args.pretrain_set:
        pretrain = [u for u in train if u.name.startswith("pretrain/")]
        train = [u for u in train if not u.name.startswith("pretrain/")]
        sets.append((args.pretrain_set, pretrain, {}))
    for name, utterances, problems in [
        *sets,
        (args.train_set, train, train_problems),
        (args.valid_set, valid, {}),
        (args.test_set, corpus.test, corpus.test_problems),
    ]:
        write_set(args.out_dir / name, utterances, problems)
        print(f"{args.out_dir / name}: {summary(utterances, problems)}")
    for line in left_out(train_problems)[:10]:
        print(f"  left out: {line}")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError as e:
        raise CorpusError(f"{path}: {e.strerror}; check --valid_list") from None


if __name__ == "__main__":
    sys.exit(main())
