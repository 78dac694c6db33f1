"""The report of experiments: one HTML page, and a file for each figure and its numbers."""

import base64
import logging
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import jinja2

from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.results.exhibits import (
    Exhibit,
    cost_exhibit,
    expert_exhibits,
    llm_expert_exhibits,
    phone_exhibits,
    rate_exhibits,
    significance_exhibits,
    view_exhibits,
)
from espnet_smop.results.measured import Measured, choose_utterances, measure
from espnet_smop.results.phones import read_phones
from espnet_smop.results.systems import FEW_SPEAKERS, System, read_systems
from espnet_smop.results.transcripts import ScoringError

PHONES = "phones.ctm"

_LOG = logging.getLogger(__name__)


def write_report(
    experiments: Sequence[Path],
    *,
    out: Path,
    data_dir: Path | None,
    model: str,
    num_utts: int,
    utterance: str | None,
    phones: Path | None,
    metric: str,
    unit: str,
    device: str,
    title: str,
) -> Path:
    """Write ``report.html`` and ``figures/NAME.{png,svg,csv}``; return the page's path.

    Args:
        experiments: their directories.
        out: where the report goes.
        data_dir: formatted data directory for expert usage and operations; None leaves them out.
        model: file name of the checkpoints.
        num_utts: utterances for expert usage, evenly spread; 0 takes all.
        utterance: the one whose routes are shown; None takes one of median length.
        phones: CTM file of the data directory's phones, for experts by phone class; None takes
            ``phones.ctm`` of the data directory, if there is one.
        metric: ``wer`` or ``cer``.
        unit: what the bootstrap draws, ``speaker`` or ``utterance``.
        device: ``cpu`` or ``cuda``.
        title: of the page.

    Raises:
        ScoringError: a decode directory's files do not belong together, or there are no
            experiments.
        OSError, ValueError: data or a config is missing or wrong.
    """
    if not experiments:
        raise ScoringError("no experiment found: none of the directories has a config.yaml")
    systems = read_systems(experiments, metric=metric, unit=unit, shorten=True)
    notes = [_about(systems, metric, unit)]
    uids, strip = choose_utterances(data_dir, num_utts, utterance) if data_dir else ([], "")
    if phones is None and data_dir and (data_dir / PHONES).is_file():
        phones = data_dir / PHONES
    alignments = read_phones(phones) if phones else {}
    alignments = {uid: alignments[uid] for uid in uids if uid in alignments}
    if phones and len(alignments) < len(uids):
        notes.append(f"{phones} has the phones of {len(alignments)} of {len(uids)} utterances.")
    measured: dict[str, Measured] = {}
    for system in systems:
        _LOG.info("%s", system.name)
        measured[system.name] = measure(
            system,
            model=model,
            data_dir=data_dir,
            uids=uids,
            strip=strip,
            phones=alignments,
            device=device,
        )
    if data_dir is None:
        notes.append("Expert usage and operations are left out: no --data_dir was given.")
    notes += [f"{name}: {problem}" for name, m in measured.items() for problem in m.problems]
    exhibits = [
        *rate_exhibits(systems, metric, unit),
        *view_exhibits(systems, metric, unit),
        *significance_exhibits(systems, metric, unit),
        *expert_exhibits(systems, measured),
        *phone_exhibits(systems, measured),
        *llm_expert_exhibits(systems, measured),
        cost_exhibit(systems, measured),
    ]
    for exhibit in exhibits:
        exhibit.write(out / "figures")
    with atomic_write(out / "report.html") as file:
        file.write(render(title, notes, exhibits))
    return out / "report.html"


def render(title: str, notes: Sequence[str], exhibits: Sequence[Exhibit]) -> str:
    """Return the page.

    Args:
        title: of the page.
        notes: paragraphs before the first exhibit.
        exhibits: in order, those of a section one after the other.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("espnet_smop.results", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    sections = [(name, list(group)) for name, group in groupby(exhibits, key=lambda e: e.section)]
    template = environment.get_template("report.html.jinja")
    return template.render(title=title, notes=notes, sections=sections)


def _about(systems: Sequence[System], metric: str, unit: str) -> str:
    scores = [score for system in systems for score in system.scores.values()]
    if not scores:
        return "Nothing is scored yet: run stages 12 and 13."
    text = (
        f"Error rates are {metric.upper()}, errors per reference token. Intervals contain 95 % of "
        f"10,000 bootstrap samples over {unit}s."
    )
    fewest = min(len(set(score.speakers)) for score in scores)
    if unit == "speaker" and fewest < FEW_SPEAKERS:
        text += (
            f" A test set has {fewest} speakers: with so few, intervals over speakers are too "
            "narrow; --unit utterance draws utterances, treating them as independent."
        )
    return text
