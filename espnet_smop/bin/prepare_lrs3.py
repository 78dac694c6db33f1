"""Read LRS3 and write the data directories of training, validation and test set."""

import argparse
import sys
from pathlib import Path

from espnet_smop.corpus import lrs3
from espnet_smop.corpus.prepare import summary, write_set


def get_parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    parser = argparse.ArgumentParser(
        description="Write Kaldi data directories from LRS3 (wav.scp video.scp landmarks.scp "
        "segments text utt2spk spk2utt); each one's prepare.txt says which clips were left out.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--lrs3", required=True, help="LRS3's directory")
    parser.add_argument("--out_dir", type=Path, default=Path("data"), help="where the sets go")
    parser.add_argument(
        "--train_parts",
        nargs="+",
        choices=lrs3.PARTS[:2],
        default=["pretrain", "trainval"],
        help="what the training set is made of: both parts are 433 h, trainval alone is 30 h",
    )
    parser.add_argument("--train_set", default="train", help="name of the training set")
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
        help="file of the clips that validate instead, one a line: trainval/<speaker>/<clip> "
        "(AV-HuBERT's lrs3-valid.id) or an id",
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
    except lrs3.CorpusError as e:
        sys.exit(f"prepare_lrs3: {e}")
    return 0


def _prepare(args: argparse.Namespace) -> None:
    root = lrs3.find_root(args.lrs3)
    landmarks_dir = args.landmarks_dir
    train, train_problems = [], {}
    for part in args.train_parts:
        utterances, problems = lrs3.read_part(
            root, part, max_seconds=args.max_seconds, landmarks_dir=landmarks_dir
        )
        train += utterances
        train_problems |= problems
    if args.valid_list:
        try:
            names = args.valid_list.read_text(encoding="utf-8").split()
        except OSError as e:
            raise lrs3.CorpusError(f"{args.valid_list}: {e.strerror}; check --valid_list") from None
        train, valid = lrs3.split_by_list(train, names)
    else:
        train, valid = lrs3.split_by_speaker(train, args.valid_share)
    test, test_problems = lrs3.read_part(
        root, "test", max_seconds=args.max_seconds, landmarks_dir=landmarks_dir
    )
    if test_problems and not args.allow_broken:
        listed = "; ".join(why if c in why else f"{c}: {why}" for c, why in test_problems.items())
        raise lrs3.CorpusError(
            f"the test set would lose {len(test_problems)} clips: {listed}. Repair them, or accept "
            "their loss by --allow_broken"
        )
    for name, utterances, problems in [
        (args.train_set, train, train_problems),
        (args.valid_set, valid, {}),
        (args.test_set, test, test_problems),
    ]:
        write_set(args.out_dir / name, utterances, problems)
        print(f"{args.out_dir / name}: {summary(utterances, problems)}")
    for clip, why in list(train_problems.items())[:10]:
        print(f"  left out: {why if clip in why else f'{clip}: {why}'}")


if __name__ == "__main__":
    sys.exit(main())
