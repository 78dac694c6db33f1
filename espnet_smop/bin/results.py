#!/usr/bin/env python3
"""From hypotheses to results: merge decoding jobs, score, print tables, make a report.

Each COMMAND has its own ``--help``.
"""

import argparse
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.command import add_output_dir, call_subcommand, device, run, str2bool
from espnet_smop.results.decodes import Score
from espnet_smop.results.error_rates import (
    describe_difference,
    describe_differences,
    error_rates,
)
from espnet_smop.results.intervals import UNIT_HELP, UNITS
from espnet_smop.results.merge import merge_hypotheses
from espnet_smop.results.over_seeds import rates_over_seeds
from espnet_smop.results.sclite import find_sclite
from espnet_smop.results.score import TOKENIZERS, score
from espnet_smop.results.systems import find_experiments


def merge(args: argparse.Namespace) -> None:
    r"""Merge the outputs of parallel decoding jobs into the decode directory.

    ``LOG_DIR/output.N/1best_recog/{text,token,token_int,score}`` become sorted files in
    ``--out_dir``; the jobs' ``costs.json`` are summed. The hypotheses must cover exactly the
    utterances of the test set.

    Example::

        python -m espnet_smop.bin.results merge --ref dump/raw/test/text --num_jobs 4 \
            --log_dir exp/avsr/decode/test/logdir --output_dir exp/avsr/decode/test
    """
    number = merge_hypotheses(
        ref=args.ref, log_dir=args.log_dir, num_jobs=args.num_jobs, out_dir=args.out
    )
    print(f"{args.out}: {number} hypotheses")


def _merge_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ref", type=Path, required=True, help="Kaldi text of the test set")
    parser.add_argument("--log_dir", type=Path, required=True, help="Directory of output.N")
    parser.add_argument("--num_jobs", type=int, required=True, help="Number of jobs")
    add_output_dir(parser, "The decode directory")


def score_hypotheses(args: argparse.Namespace) -> None:
    r"""Score hypotheses: word and character error rates in sclite's form.

    Writes ``score_wer/{ref.trn,hyp.trn,result.txt}`` and ``score_cer/…`` below ``--out_dir``.
    ``result.txt`` comes from sclite where it is installed, otherwise from a writer of the same
    report.

    Example::

        python -m espnet_smop.bin.results score --ref dump/raw/test/text \
            --hyp exp/avsr/decode/test/text --utt2spk dump/raw/test/utt2spk \
            --output_dir exp/avsr/decode/test
    """
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s: %(message)s")
    rates = score(
        ref=args.ref,
        hyp=args.hyp,
        utt2spk=args.utt2spk,
        out_dir=args.out,
        metrics=args.metrics,
        sclite={"auto": find_sclite(), "none": None}.get(args.sclite, args.sclite),
        sclite_options=shlex.split(args.score_opts),
    )
    print(args.out, *(f"{metric.upper()} {rate:.1f}" for metric, rate in rates.items()))


def _score_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ref", type=Path, required=True, help="Kaldi text file of references")
    parser.add_argument("--hyp", type=Path, required=True, help="Kaldi text file of hypotheses")
    parser.add_argument(
        "--utt2spk", type=Path, help="Speakers; without it each utterance is a speaker of its own"
    )
    add_output_dir(parser, "The decode directory")
    parser.add_argument(
        "--metrics", nargs="+", choices=sorted(TOKENIZERS), default=["wer", "cer"], help="Rates"
    )
    parser.add_argument(
        "--sclite", default="auto", help="auto (if installed), none, or the program's path"
    )
    parser.add_argument("--score_opts", default="", help="Further options for sclite, e.g. '-s'")


def table(args: argparse.Namespace) -> None:
    """Print error rates: a row for each system, a column for each noise level.

    Each rate has its 95 % bootstrap interval. ``--compare A B`` tells instead whether two
    experiments, or two decode directories of the same test set, differ significantly (paired
    bootstrap). ``--over_seeds`` treats experiments whose names differ only in a final ``_seedN``
    as trainings of one system: it prints means and standard deviations, and compares each system
    with the first one over seeds and utterances.

    Example::

        python -m espnet_smop.bin.results table exp
        python -m espnet_smop.bin.results table exp/avsr_train_asr_smop4 exp/avsr_train_vsr_smop4
        python -m espnet_smop.bin.results table --over_seeds exp/avsr_A* exp/avsr_B*
        python -m espnet_smop.bin.results table --compare exp/avsr_A exp/avsr_B
        python -m espnet_smop.bin.results table --compare exp/A/decode/test exp/B/decode/test
    """
    if bool(args.exp) == bool(args.compare):
        raise ValueError("give experiments, or --compare A B")
    if args.compare and args.over_seeds:
        raise ValueError("with --over_seeds, give the experiments without --compare: A* B*")
    options = {"metric": args.metric, "unit": args.unit}
    if not args.compare:
        rates = rates_over_seeds if args.over_seeds else error_rates
        text = rates(find_experiments(args.exp), **options)
        print(text or "no scored decode directory yet: run stages 12 and 13")
    elif all((path / "config.yaml").is_file() for path in args.compare):
        print("\n".join(describe_differences(*args.compare, **options)))
    else:
        a, b = (Score.read(path, **options) for path in args.compare)
        print(describe_difference(a, b, metric=args.metric))


def _table_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("exp", nargs="*", type=Path, help="Experiments or their parent folders")
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A", "B"),
        help="Two experiments, or two decode directories",
    )  # fmt: skip
    parser.add_argument(
        "--over_seeds", type=str2bool, default=False,
        help="Average over experiments NAME, NAME_seed1, … and compare with the first NAME",
    )  # fmt: skip
    _add_error_rate_arguments(parser)


def report(args: argparse.Namespace) -> None:
    r"""Make a report of experiments: error rates, significance, expert usage, and costs.

    Writes ``report.html``, a self-contained page, and ``figures/NAME.{png,svg,csv}`` for each
    figure. Error rates come from the scored decode directories; expert usage and operations from
    one pass of the trained models over utterances of ``--data_dir``. With a CTM file of their
    phones, it shows which experts take which phone classes.

    Example::

        python -m espnet_smop.bin.results report exp --data_dir dump/raw/test
        python -m espnet_smop.bin.results report exp/avsr_A exp/avsr_B --data_dir dump/raw/test \
            --output_dir exp/compared
    """
    # Late: the other commands need neither matplotlib nor the models.
    from espnet_smop.results.report import write_report

    # Building models logs a lot.
    logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)s: %(message)s")
    logging.getLogger("espnet_smop.results").setLevel("INFO")
    page = write_report(
        find_experiments(args.exp),
        out=args.out or args.exp[0] / "analysis",
        data_dir=args.data_dir,
        model=args.model,
        num_utts=args.num_utts,
        utterance=args.utterance,
        phones=args.phones,
        metric=args.metric,
        unit=args.unit,
        device=args.device,
        title=args.title,
    )
    print(page)


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("exp", nargs="+", type=Path, help="Experiments or their parent folders")
    add_output_dir(
        parser, "Directory for the report (default: analysis in the first EXP)", required=False
    )
    parser.add_argument(
        "--data_dir",
        type=Path,
        help="Formatted data directory, e.g. dump/raw/test, for expert usage and operations, which "
        "are left out without it; run where the paths in its scp files are valid",
    )
    parser.add_argument("--model", default="valid.acc.ave.pth", help="Checkpoint")
    parser.add_argument(
        "--num_utts",
        type=int,
        default=200,
        help="Utterances for expert usage, spread over the data directory; 0 takes all",
    )
    parser.add_argument(
        "--utterance", help="Utterance whose routes are shown (default: one of median length)"
    )
    parser.add_argument(
        "--phones",
        type=Path,
        help="CTM file of phones in IPA or ARPABET (lines `UTTERANCE 1 START DURATION PHONE`, in "
        "seconds), for experts by phone class; by default phones.ctm of --data_dir, if it exists",
    )
    _add_error_rate_arguments(parser)
    parser.add_argument(
        "--device", type=device, default="auto", help="auto (a GPU if there is one), cpu or cuda"
    )
    parser.add_argument(
        "--title", default="Audio-visual speech recognition: results", help="Title of the page"
    )


def widths(args: argparse.Namespace) -> None:
    r"""Plot error rates against layer width: means over seeds, with standard deviations.

    Experiments ``NAME_wN`` are one system with layers of width N, ``NAME_wN_seedM`` its trainings
    with other seeds. Writes ``width.{svg,png,csv}`` with a panel for each noise level.

    Example::

        python -m espnet_smop.bin.results widths exp/avsr_dense_w* exp/avsr_smop4_w* \
            --output_dir exp/width
    """
    from espnet_smop.results.width_curves import width_exhibit

    exhibit = width_exhibit(find_experiments(args.exp), metric=args.metric)
    exhibit.write(args.out)
    print(args.out / f"{exhibit.file_name}.svg")


def _widths_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("exp", nargs="+", type=Path, help="Experiments or their parent folders")
    add_output_dir(parser, "Output directory")
    _add_metric(parser)


def _add_metric(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--metric", choices=("wer", "cer"), default="wer", help="Error rate")


def _add_error_rate_arguments(parser: argparse.ArgumentParser) -> None:
    _add_metric(parser)
    parser.add_argument("--unit", choices=UNITS, default=UNITS[0], help=UNIT_HELP)


COMMANDS = [
    ("merge", _merge_arguments, merge),
    ("score", _score_arguments, score_hypotheses),
    ("table", _table_arguments, table),
    ("report", _report_arguments, report),
    ("widths", _widths_arguments, widths),
]


def main(cmd: Sequence[str] | None = None) -> int | None:
    """Run the subcommand that the command line names."""
    return call_subcommand(cmd, name="results", description=__doc__, commands=COMMANDS)


if __name__ == "__main__":
    run(main)
