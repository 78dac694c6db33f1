"""The report's exhibits: figures and tables with their captions and the numbers behind them."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from espnet_smop.fileio.atomic import atomic_path, atomic_write
from espnet_smop.modality import MODALITIES
from espnet_smop.results import figures
from espnet_smop.results.decodes import CLEAN, Condition, Score
from espnet_smop.results.error_rates import rate_table
from espnet_smop.results.expert_usage import CHOICES, Route
from espnet_smop.results.measured import Measured
from espnet_smop.results.parameters import Parameters
from espnet_smop.results.phone_usage import Dependence
from espnet_smop.results.phones import CLASSES
from espnet_smop.results.systems import System, compare, conditions
from espnet_smop.results.transcripts import read_text

RATES, PAIRS, EXPERTS, COSTS = "Error rates", "Significance", "Expert usage", "Costs"
UNKNOWN = "–"
_PARTS = ("encoders", "projector", "projector_active", "llm")
"""Parameter counts that appear only in the CSV file."""
PNG_DPI = 200

Row = dict[str, Any]


@dataclass
class Exhibit:
    """One figure or table.

    Attributes:
        name: stem of its file names.
        title: its heading.
        caption: describes what is drawn, the data and the intervals.
        section: heading of the report that it belongs to.
        figure: the figure; None for a table alone.
        rows: the numbers, dictionaries with the same keys.
        table: header and lines to show; empty if the figure is enough.
        names: number of leading columns of the table that hold names.
    """

    name: str
    title: str
    caption: str
    section: str
    figure: Figure | None = None
    rows: list[Row] = field(default_factory=list)
    table: tuple[Sequence[str], Sequence[Sequence[str]]] = ((), ())
    names: int = 1

    @property
    def file_name(self) -> str:
        """The name, restricted to characters that are safe in file names."""
        return re.sub(r"[^A-Za-z0-9.=+-]+", "_", self.name)

    @cached_property
    def csv(self) -> str:
        """The numbers as CSV."""
        out = io.StringIO()
        if self.rows:
            writer = csv.DictWriter(out, fieldnames=list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
        return out.getvalue()

    @cached_property
    def svg(self) -> bytes:
        """The figure as SVG, the same bytes for the same figure."""
        out = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": self.name}):
            self.figure.savefig(out, format="svg", metadata={"Date": None})
        return out.getvalue()

    def write(self, directory: Path) -> None:
        """Write ``NAME.csv`` and, for a figure, ``NAME.{png,svg}``."""
        if self.figure is not None:
            with atomic_path(directory / f"{self.file_name}.svg") as path:
                path.write_bytes(self.svg)
            with atomic_path(directory / f"{self.file_name}.png") as path:
                self.figure.savefig(path, format="png", dpi=PNG_DPI)
        with atomic_write(directory / f"{self.file_name}.csv") as file:
            file.write(self.csv)


def as_table(rows: Sequence[Row], hidden: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
    """Return header and lines of a table of the rows, with rounded numbers.

    Args:
        rows: at least one.
        hidden: keys to leave out.
    """
    keys = [key for key in rows[0] if key not in hidden]
    header = [key.replace("_", " ").replace("gflop per second", "GFLOP/s,") for key in keys]
    return header, [[_cell(row[key]) for key in keys] for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def rate_exhibits(systems: Sequence[System], metric: str, unit: str) -> Iterator[Exhibit]:
    """Show error rates: a table of all conditions, and a curve over each noise."""
    header, lines = rate_table(systems)
    if not lines:
        return
    intervals = f"Intervals: 95 % bootstrap over {unit}s."
    yield Exhibit(
        name="rates",
        title=f"{metric.upper()} in %",
        caption=f"Lower is better. {intervals}",
        section=RATES,
        rows=_rate_rows(systems, conditions(systems)),
        table=(header, lines),
        names=2,
    )
    for test_set, of_set in groupby(conditions(systems), key=lambda c: c.test_set):
        noisy = [c for c in of_set if c.snr != CLEAN]
        for noise, levels in groupby(noisy, key=lambda c: c.noise):
            levels = list(levels)
            clean = Condition(test_set, "", CLEAN)
            yield Exhibit(
                name=f"snr_{test_set}_{noise}",
                title=f"{metric.upper()} against noise on {test_set}",
                caption=f"{metric.upper()} in % under noise '{noise}', and on clean speech at the "
                f"right. Systems are drawn side by side at each level. {intervals}",
                section=RATES,
                figure=figures.noise_curves(
                    {
                        s.name: {float(c.snr): score for c in levels if (score := s.at(c))}
                        for s in systems
                    },
                    {s.name: score for s in systems if (score := s.at(clean))},
                    f"{metric.upper()} (%)",
                ),
                rows=_rate_rows(systems, [clean, *levels]),
            )


def view_exhibits(systems: Sequence[System], metric: str, unit: str) -> Iterator[Exhibit]:
    """Show what coarser rates cost: the error rate over the tokens that the LLM reads."""
    at_rates = [s for s in systems if s.view and s.view.rates and s.costs]
    for condition in conditions(at_rates):
        scored = [(s, score) for s in at_rates if (score := s.scores.get(condition))]
        if condition.snr != CLEAN or len(scored) < 2:
            continue
        several = len({s.path for s, _ in scored}) > 1
        curves: dict[str, dict[float, Score]] = {}
        for system, score in scored:
            name = f"{system.path.name} {system.task}" if several else system.task
            curves.setdefault(name, {})[system.costs.tokens_per_second] = score
        yield Exhibit(
            name=f"rates_{condition.test_set}",
            title=f"{metric.upper()} against tokens per second on {condition.test_set}",
            caption=f"{metric.upper()} in % against the audio and video tokens that the LLM reads "
            f"per second of speech. Intervals: 95 % bootstrap over {unit}s.",
            section=RATES,
            figure=figures.token_curves(curves, f"{metric.upper()} (%)"),
            rows=[
                {
                    "system": system.name,
                    "task": system.task,
                    **{f"{m}_rate": system.view.rates.get(m) for m in MODALITIES},
                    "tokens_per_second": round(system.costs.tokens_per_second, 3),
                    "rtf": _digits(system.costs.rtf),
                    **_percentages(score),
                }
                for system, score in scored
            ],
        )


def _rate_rows(systems: Sequence[System], where: Sequence[Condition]) -> list[Row]:
    return [
        {
            "task": system.task, "system": system.name, **condition._asdict(),
            **_percentages(score), "errors": sum(score.errors),
            "words": sum(score.words), "utterances": len(score.names),
            "speakers": len(set(score.speakers)),
        }
        for system in systems for condition in where if (score := system.at(condition))
    ]  # fmt: skip


def _percentages(score: Score) -> Row:
    low, high = score.interval
    values = {"rate": score.rate, "low": low, "high": high}
    return {name: round(100 * value, 4) for name, value in values.items()}


def significance_exhibits(systems: Sequence[System], metric: str, unit: str) -> Iterator[Exhibit]:
    """Show which differences between systems are significant."""
    order = {s.name: i for i, s in enumerate(systems)}
    for condition in conditions(systems):
        found = compare(systems, condition)
        if not found:
            continue
        names = sorted({n for d in found for n in (d.a, d.b)}, key=order.__getitem__)
        cells = {
            (names.index(d.b), names.index(d.a)): (-100 * d.bootstrap.difference, d.significant)
            for d in found
        }
        rows = [
            {
                **condition._asdict(), "a": d.a, "b": d.b,
                "difference": round(100 * d.bootstrap.difference, 4),
                "low": round(100 * d.bootstrap.low, 4), "high": round(100 * d.bootstrap.high, 4),
                "errors": d.errors, "segments": d.test.segments, "z": round(d.test.z, 4),
                "matched_pairs_p": _digits(d.test.p_value),
                "matched_pairs_p_holm": _digits(d.p_holm), "significant": d.significant,
                "bootstrap_p": _digits(d.bootstrap.p_value),
            }
            for d in found
        ]  # fmt: skip
        yield Exhibit(
            name=f"significance_{condition.test_set}_{condition.noise}{condition.snr}",
            title=f"Differences on {condition}",
            caption=f"{metric.upper()} of the row's system minus that of the column's, in points. "
            "* significant at 5 % by the matched-pairs test on sentence segments (MAPSSWE), "
            f"two-sided, adjusted for {len(found)} comparisons (Holm). Intervals and bootstrap p: "
            f"paired bootstrap over {unit}s.",
            section=PAIRS,
            figure=figures.significance(names, cells, metric.upper()),
            rows=rows,
            table=as_table(rows, Condition._fields) if condition.snr == CLEAN else ((), ()),
            names=2,
        )


def _digits(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")


def expert_exhibits(systems: Sequence[System], measured: dict[str, Measured]) -> Iterator[Exhibit]:
    """Show how routers distribute tokens over experts."""
    routed = [(s, m) for s in systems if (m := measured[s.name].routing).usages]
    if not routed:
        return
    rows = [
        {
            "system": system.name, "router": usage.router, "tokens_of": usage.modality,
            "tokens": usage.tokens, "evenness": round(usage.evenness, 4),
            "evenness_of_first_choices": round(usage.first_evenness, 4),
            "imbalance": round(usage.imbalance, 4),
        }
        for system, routing in routed for usage in routing.usages
    ]  # fmt: skip
    yield Exhibit(
        name="routers",
        title="How evenly routers distribute tokens",
        caption="Evenness: entropy of the experts' load over its maximum (1: all equal). "
        "Imbalance: load of the busiest expert over the mean (1: all equal; at most N / K). The "
        "load counts all K choices: with K near N it is even whatever the router does. Clean "
        f"speech, {routed[0][1].utterances} utterances.",
        section=EXPERTS,
        rows=rows,
        table=as_table(rows),
        names=3,
    )
    for system, routing in routed:
        yield Exhibit(
            name=f"usage_{system.name}",
            title=f"Expert usage of {system.name}",
            caption="Share of tokens for which each expert, numbered from 0, is the first and the "
            f"second choice, on {routing.utterances} utterances of clean speech.",
            section=EXPERTS,
            figure=figures.expert_usage(routing.usages),
            rows=[
                {
                    "router": u.router, "modality": u.modality, "expert": e,
                    **{f"{c}_choice": round(float(share), 6) for c, share in
                       zip(CHOICES, u.shares[:, e], strict=False)},
                    "load": round(float(u.load[e]), 6), "tokens": u.tokens,
                }
                for u in routing.usages for e in range(u.counts.shape[1])
            ],
        )  # fmt: skip
        strip = routing.strip
        yield Exhibit(
            name=f"strip_{system.name}",
            title=f"Where {system.name} sends the tokens of {strip.uid}",
            caption="One utterance over time: the mouth, the waveform, and for each token the "
            "router's softmax (colour) with its first choice (filled) and second choice (ring). "
            "'Heard' is the decoded hypothesis on clean speech.",
            section=EXPERTS,
            figure=figures.strip(strip, _heard(system, strip.uid)),
            rows=[
                {
                    "router": r.router, "modality": r.modality,
                    "time": round(t * r.token_seconds, 4),
                    **{f"choice_{k + 1}": int(e) for k, e in enumerate(r.choices[t])},
                    **{f"p_{e}": round(float(p), 6) for e, p in enumerate(r.probs[t])},
                }
                for r in _widest_first(strip.routes) for t in range(len(r.probs))
            ],
        )  # fmt: skip


def phone_exhibits(systems: Sequence[System], measured: dict[str, Measured]) -> Iterator[Exhibit]:
    """Show which experts take which classes of phones, and how much that is beyond chance."""
    routed = [(s, usages) for s in systems if (usages := measured[s.name].routing.phone_usages)]
    if not routed:
        return
    rows = [
        {
            "system": system.name, "router": usage.router, "tokens_of": usage.modality,
            "choices": choices, "tokens": len(usage.classes),
            "entropy_of_class": _digits(found.entropy),
            "mutual_information": _digits(found.information),
            "by_chance": _digits(found.chance), "by_chance_95": _digits(found.chance_high),
        }
        for system, usages in routed for usage in usages
        for choices, found in (("first", usage.first), ("by weight", usage.weighted))
    ]  # fmt: skip
    yield Exhibit(
        name="phones",
        title="Mutual information of experts and phones",
        caption="Mutual information, in bits, of a token's expert and the phone class that covers "
        "most of the token, for first choices and for all choices by their weights. The entropy of "
        "the class is its upper bound. By chance: mean and 95th percentile over random shifts of "
        "the classes against the tokens.",
        section=EXPERTS,
        rows=rows,
        table=as_table(rows),
        names=4,
    )
    for system, usages in routed:
        yield Exhibit(
            name=f"phones_{system.name}",
            title=f"Experts of {system.name} by phone class",
            caption="Share in % of each class's tokens for which each expert, numbered from 0, is "
            "the first choice. The CSV file has the shares by weight as well.",
            section=EXPERTS,
            figure=figures.phone_usage(usages),
            rows=[
                {
                    "router": u.router, "modality": u.modality, "class": name,
                    "tokens": int(u.first.tokens[c]), "expert": e,
                    "first_choice": _share(u.first, c, e), "by_weight": _share(u.weighted, c, e),
                }
                for u in usages for c, name in enumerate(CLASSES) if u.first.tokens[c]
                for e in range(u.first.table.shape[1])
            ],
        )  # fmt: skip


def _share(found: Dependence, class_index: int, expert: int) -> float:
    row = found.table[class_index]
    return round(float(row[expert] / row.sum()), 6)


def llm_expert_exhibits(
    systems: Sequence[System], measured: dict[str, Measured]
) -> Iterator[Exhibit]:
    """Show how the mixtures in the LLM's layers distribute tokens over experts."""
    for system in systems:
        routing = measured[system.name].routing
        if not routing.llm_usages:
            continue
        yield Exhibit(
            name=f"llm_usage_{system.name}",
            title=f"Experts in the LLM's layers of {system.name}",
            caption="Load of each routed expert, numbered from 0, in each layer and view: its "
            f"share of all choices, on {routing.utterances} utterances of clean speech.",
            section=EXPERTS,
            figure=figures.layer_usage(routing.llm_usages),
            rows=[
                {
                    "view": u.modality, "layer": u.router.removeprefix("layer "), "expert": e,
                    "load": round(float(load), 6), "evenness": round(u.evenness, 4),
                    "tokens": u.tokens,
                }
                for u in routing.llm_usages for e, load in enumerate(u.load)
            ],
        )  # fmt: skip


def _widest_first(routes: Sequence[Route]) -> list[Route]:
    """Return the routes with the widest router first, because the first row names the columns."""
    return sorted(routes, key=lambda r: -r.probs.shape[1])


def _heard(system: System, uid: str) -> str:
    for condition, score in system.scores.items():
        hypotheses = score.path / "text"
        if condition.snr == CLEAN and hypotheses.is_file():
            texts = read_text(hypotheses)
            if uid in texts:
                return texts[uid]
    return UNKNOWN


def cost_exhibit(systems: Sequence[System], measured: dict[str, Measured]) -> Exhibit:
    """Show parameters, operations, and time and memory of decoding."""
    parts = list(dict.fromkeys(p for m in measured.values() for p in m.routing.gflops))
    rows = []
    for system in systems:
        parameters, gflops = measured[system.name].parameters, measured[system.name].routing.gflops
        row: Row = {"system": system.name}
        for part in fields(Parameters):
            row[f"parameters_{part.name}"] = (
                None if parameters is None else getattr(parameters, part.name)
            )
        row |= {f"gflop_per_second_{p.replace(' ', '_')}": _digits(gflops.get(p)) for p in parts}
        costs = system.costs
        row |= dict.fromkeys(("rtf", "memory_mib", "memory_of"))
        if costs is not None:
            row["rtf"] = _digits(costs.rtf)
            row["memory_mib"] = round(costs.peak_memory_mib)
            row["memory_of"] = costs.memory_of
        rows.append(row)
    return Exhibit(
        name="cost",
        title="Parameters, operations, and decoding",
        caption="Active: without the experts that a token is not sent to. GFLOP per second of "
        "speech, a multiply-add counted as two; for the LLM, of reading media tokens, prompt and "
        "text once (a beam of B multiplies the text's share by B). RTF and peak memory of a job "
        "were measured while decoding clean speech: they depend on the machine, its load, and the "
        "decoding config.",
        section=COSTS,
        rows=rows,
        table=as_table(rows, [f"parameters_{part}" for part in _PARTS]),
    )
