#!/usr/bin/env python3
"""Make a report of experiments: error rates, significance, expert usage, and what they cost.

Writes ``report.html``, which needs nothing beside it, ``report.json`` with all numbers, and for
each figure ``figures/NAME.{png,svg,csv,json}``. Error rates come from the scored decode
directories; expert usage and operations from one pass of the trained models over utterances of
``--data_dir``.

Example::

    python -m espnet_smop.bin.analyze exp --data_dir dump/raw/test
    python -m espnet_smop.bin.analyze exp/avsr_A exp/avsr_B --data_dir dump/raw/test --out compared
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.analysis.exhibits import Exhibit
from espnet_smop.analysis.measured import Measured, choose_utterances, measure
from espnet_smop.analysis.report import render
from espnet_smop.analysis.sections import (
    cost_exhibits,
    rate_exhibits,
    significance_exhibits,
    training_exhibits,
    usage_exhibits,
)
from espnet_smop.analysis.systems import FEW_SPEAKERS, System, read_systems
from espnet_smop.bin.show_table import find_experiments
from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.scoring.transcripts import ScoringError

_LOG = logging.getLogger("espnet_smop.analyze")


def analyze(
    experiments: Sequence[Path],
    *,
    out: Path,
    data_dir: Path | None,
    model: str,
    num_utts: int,
    utterance: str | None,
    metric: str,
    unit: str,
    device: str,
    title: str,
) -> Path:
    """Write the report and return its path.

    Raises:
        ScoringError: a decode directory's files do not belong together, or there are no
            experiments.
        OSError, ValueError: data or a config is missing or wrong.
    """
    if not experiments:
        raise ScoringError("no experiment there: none has a config.yaml")
    systems = read_systems(experiments, metric=metric, unit=unit)
    measured: dict[str, Measured] = {}
    notes = [_about(systems, metric, unit)]
    uids, shown = choose_utterances(data_dir, num_utts, utterance) if data_dir else ([], "")
    for system in systems:
        _LOG.info("%s", system.name)
        measured[system.name] = measure(
            system, model=model, data_dir=data_dir, uids=uids, shown=shown, device=device
        )
    if data_dir is None:
        notes.append("Expert usage and operations are left out: no --data_dir was given.")
    notes += [f"{name}: {problem}" for name, m in measured.items() for problem in m.problems]

    exhibits = [
        *rate_exhibits(systems, measured, metric, unit),
        *significance_exhibits(systems, metric, unit),
        *usage_exhibits(systems, measured),
        *cost_exhibits(systems, measured),
        *training_exhibits(systems),
    ]
    return write(out, title, notes, exhibits)


def write(out: Path, title: str, notes: Sequence[str], exhibits: Sequence[Exhibit]) -> Path:
    """Write all files, the page last."""
    for exhibit in exhibits:
        exhibit.write(out / "figures")
    everything = {
        "title": title,
        "notes": list(notes),
        "exhibits": {e.name: e.described for e in exhibits},
    }
    with atomic_write(out / "report.json") as file:
        json.dump(everything, file, indent=1, ensure_ascii=False, allow_nan=False)
        file.write("\n")
    with atomic_write(out / "report.html") as file:
        file.write(render(title, notes, exhibits))
    return out / "report.html"


def _about(systems: Sequence[System], metric: str, unit: str) -> str:
    scores = [score for system in systems for score in system.scores.values()]
    if not scores:
        return "Nothing is scored yet: run stages 12 and 13."
    text = (
        f"Error rates are {metric.upper()}, errors per reference token. Intervals hold 95 % of "
        f"10,000 bootstrap samples; what is drawn are {unit}s."
    )
    fewest = min(len(set(score.errors.speakers)) for score in scores)
    if unit == "speaker" and fewest < FEW_SPEAKERS:
        text += (
            f" A test set has {fewest} speakers: with so few, intervals over speakers come out too "
            "narrow; --unit utterance draws utterances, taking them for independent."
        )
    return text


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("exp", nargs="+", type=Path, help="Experiments, or directories of such")
    parser.add_argument(
        "--out", type=Path, help="Where the report goes (default: EXP/analysis of the first EXP)"
    )
    parser.add_argument(
        "--data_dir",
        type=Path,
        help="Formatted data directory, e.g. dump/raw/test, for expert usage and operations; "
        "run where the paths in its scp files hold (default: these are left out)",
    )
    parser.add_argument(
        "--model", default="valid.acc.ave.pth", help="Checkpoint (default: %(default)s)"
    )
    parser.add_argument(
        "--num_utts",
        type=int,
        default=200,
        help="Utterances for expert usage, spread over the data directory; 0 takes all "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--utterance", help="The one whose routes are shown (default: one of median length)"
    )
    parser.add_argument("--metric", choices=("wer", "cer"), default="wer")
    parser.add_argument(
        "--unit",
        choices=("speaker", "utterance"),
        default="speaker",
        help="What the bootstrap draws (default: %(default)s)",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--title", default="Audio-visual speech recognition: analysis")
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Write the report that the command line describes."""
    args = vars(get_parser().parse_args(cmd))
    # Models say much about themselves when they are built.
    logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)s: %(message)s")
    _LOG.setLevel("INFO")
    paths = args.pop("exp")
    out = args.pop("out") or paths[0] / "analysis"
    try:
        print(analyze(find_experiments(paths), out=out, **args))
    except (ScoringError, OSError, ValueError) as e:
        logging.debug("", exc_info=True)
        sys.exit(f"analyze: {e}")


if __name__ == "__main__":
    main()
