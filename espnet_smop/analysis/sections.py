"""What the report shows: from systems and what was measured to figures, captions and tables."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import groupby

from espnet_smop.analysis import figures
from espnet_smop.analysis.accounting import Parameters
from espnet_smop.analysis.decode_logs import DecodeCost, read_decode_cost
from espnet_smop.analysis.exhibits import Exhibit
from espnet_smop.analysis.figures import Point
from espnet_smop.analysis.measured import Measured
from espnet_smop.analysis.strip import Route
from espnet_smop.analysis.systems import (
    Condition,
    Difference,
    Score,
    System,
    alike_but_for,
    compare,
    conditions,
    num_experts,
    score_at,
)
from espnet_smop.analysis.training_curves import read_curves
from espnet_smop.analysis.usage import CHOICES
from espnet_smop.scoring.decodes import CLEAN
from espnet_smop.scoring.transcripts import read_text

RATES, PAIRS, EXPERTS = "Error rates", "Significance", "Expert usage"
COST, TRAINING = "Parameters and compute", "Training"
UNKNOWN = "–"
_CURVES = {
    "acc": "Validation accuracy of tokens",
    "loss_balance": "Load-balancing loss",
    "loss_z": "Router z-loss",
}


def rate_exhibits(
    systems: Sequence[System], measured: dict[str, Measured], metric: str, unit: str
) -> Iterator[Exhibit]:
    """Show error rates: all of them, over noise, over the number of experts, and over size."""
    everywhere = conditions(systems)
    label = f"{metric.upper()} (%)"
    drawn = f"Bars are 95 % bootstrap intervals over {unit}s."
    for test_set, of_set in groupby(everywhere, key=lambda c: c.test_set):
        of_set = list(of_set)
        first = of_set[0]
        scored = [(s, score) for s in systems if (score := score_at(s, first))]
        yield Exhibit(
            name=f"rates_{test_set}",
            title=f"{metric.upper()} on {test_set}",
            caption=f"{metric.upper()} in % on {first}; lower is better. {drawn}"
            + (" The table has every condition." if len(of_set) > 1 else ""),
            section=RATES,
            figure=figures.dots(
                [s.name for s, _ in scored], [_point(0, score) for _, score in scored], label
            ),
            rows=_rate_rows(systems, of_set),
            table=(
                ["task", "system", *(_level(c) for c in of_set)],
                [
                    [s.task, s.name, *(_cell(score_at(s, c)) for c in of_set)]
                    for s in systems
                    if any(score_at(s, c) for c in of_set)
                ],
            ),
            names=2,
        )
        for noise in dict.fromkeys(c.noise for c in of_set if c.snr != CLEAN):
            levels = [c for c in of_set if c.noise == noise and c.snr != CLEAN]
            clean = Condition(test_set, "", CLEAN)
            yield Exhibit(
                name=f"snr_{test_set}_{noise}",
                title=f"{metric.upper()} against noise on {test_set}",
                caption=f"{metric.upper()} in % under noise '{noise}', and on clean speech at the "
                f"right. Systems are drawn beside each other at each level. {drawn}",
                section=RATES,
                figure=figures.against_snr(
                    {
                        s.name: [
                            _point(float(c.snr), score) for c in levels if (score := score_at(s, c))
                        ]
                        for s in systems
                    },
                    {s.name: _point(0, score) for s in systems if (score := score_at(s, clean))},
                    label,
                ),
                rows=_rate_rows(systems, [*(c for c in of_set if c == clean), *levels]),
            )
        yield from _ablations(systems, measured, of_set, label, drawn)


def _ablations(
    systems: Sequence[System],
    measured: dict[str, Measured],
    of_set: Sequence[Condition],
    label: str,
    drawn: str,
) -> Iterator[Exhibit]:
    experts = {s.name: num_experts(s.config) for s in systems}
    sizes = {
        name: m.parameters.encoders + m.parameters.llm
        for name, m in measured.items()
        if m.parameters
    }
    for what, x_of, title, x_label in (
        ("experts", experts, "the number of experts", "Experts per pool, N"),
        ("size", sizes, "encoder and LLM size", "Parameters of encoders and LLM"),
    ):
        lines: dict[str, list[Point]] = {}
        rows = []
        for family in _families(systems, what, x_of):
            for condition in of_set:
                points = []
                for system in family:
                    score = score_at(system, condition)
                    if score:
                        points.append(_point(float(x_of[system.name]), score))
                        rows += [{what: x_of[system.name]} | r
                                 for r in _rate_rows([system], [condition])]  # fmt: skip
                if points:
                    lines[f"{family[0].name} and alike, {_level(condition)}"] = points
        if lines:
            values = {p.x for points in lines.values() for p in points}
            yield Exhibit(
                name=f"{what}_{of_set[0].test_set}",
                title=f"{label.split()[0]} against {title} on {of_set[0].test_set}",
                caption=f"Systems that differ in {title} alone share a line. {drawn}",
                section=RATES,
                figure=figures.against_number(
                    lines, x_label, label, log=what == "size",
                    labels={x: _count(x) for x in values} if what == "size" else None,
                ),
                rows=rows,
            )  # fmt: skip


def _families(systems: Sequence[System], what: str, x_of: dict) -> list[list[System]]:
    """Return the systems that differ in one thing alone, and do differ in it."""
    families: dict[tuple[str, str], list[System]] = {}
    for system in systems:
        if x_of.get(system.name) is not None:
            key = (system.task, alike_but_for(system.config, what))
            families.setdefault(key, []).append(system)
    return [f for f in families.values() if len({x_of[s.name] for s in f}) > 1]


def significance_exhibits(systems: Sequence[System], metric: str, unit: str) -> Iterator[Exhibit]:
    """Show which differences between systems are more than chance."""
    index = {s.name: i for i, s in enumerate(systems)}
    for condition in conditions(systems):
        found = compare(systems, condition, unit)
        if not found:
            continue
        names = sorted({n for d in found for n in (d.a, d.b)}, key=index.__getitem__)
        cells = {
            (names.index(d.b), names.index(d.a)): (-100 * d.difference, d.significant)
            for d in found
        }
        yield Exhibit(
            name=f"significance_{condition.test_set}_{condition.noise}{condition.snr}",
            title=f"Differences on {condition}",
            caption=f"{metric.upper()} of the row's system minus that of the column's, in points. "
            "* significant at 5 % by the matched-pairs test on sentence segments (MAPSSWE), "
            f"two-sided, adjusted for {len(found)} comparisons (Holm). The CSV file has the "
            f"paired bootstrap over {unit}s as well.",
            section=PAIRS,
            figure=figures.significance(names, cells, metric.upper()),
            rows=[_difference_row(d) for d in found],
            table=_difference_table(found) if condition.snr == CLEAN else ((), ()),
            names=2,
        )


def _difference_row(d: Difference) -> dict:
    return {
        "test_set": d.condition.test_set, "noise": d.condition.noise, "snr": d.condition.snr,
        "a": d.a, "b": d.b, "difference": round(100 * d.difference, 4),
        "low": round(100 * d.low, 4), "high": round(100 * d.high, 4), "errors": d.errors,
        "segments": d.segments, "z": round(d.z, 4),
        "matched_pairs_p": _significant(d.matched_pairs_p),
        "matched_pairs_p_holm": _significant(d.matched_pairs_holm),
        "bootstrap_p": _significant(d.bootstrap_p), "significant": d.significant,
    }  # fmt: skip


def _significant(p: float) -> float:
    return float(f"{p:.4g}")


def _difference_table(found: Sequence[Difference]) -> tuple[list[str], list[list[str]]]:
    header = ["A", "B", "A − B, points", "errors", "Z", "p", "p, Holm", "p, bootstrap", "verdict"]
    lines = [
        [
            d.a, d.b,
            f"{100 * d.difference:+.2f} [{100 * d.low:+.2f}, {100 * d.high:+.2f}]",
            f"{d.errors:+d}", f"{d.z:.2f}", f"{d.matched_pairs_p:.3f}",
            f"{d.matched_pairs_holm:.3f}", f"{d.bootstrap_p:.3f}",
            ("A better" if d.difference < 0 else "B better") if d.significant else "no difference",
        ]
        for d in found
    ]  # fmt: skip
    return header, lines


def usage_exhibits(systems: Sequence[System], measured: dict[str, Measured]) -> Iterator[Exhibit]:
    """Show how routers share tokens out."""
    routed = [(s, m) for s in systems if (m := measured[s.name].routing).usages]
    if not routed:
        return
    rows, lines = [], []
    for system, routing in routed:
        for usage in routing.usages:
            rows.append(
                {
                    "system": system.name, "router": usage.router, "modality": usage.modality,
                    "tokens": usage.tokens, "evenness": round(usage.evenness, 4),
                    "first_choice_evenness": round(usage.first_evenness, 4),
                    "imbalance": round(usage.imbalance, 4),
                }
            )  # fmt: skip
            lines.append([system.name, usage.router, usage.modality, f"{usage.tokens:,}",
                          f"{usage.evenness:.3f}", f"{usage.first_evenness:.3f}",
                          f"{usage.imbalance:.2f}"])  # fmt: skip
    yield Exhibit(
        name="routers",
        title="How evenly routers share tokens out",
        caption="Evenness: entropy of the experts' load over its maximum (1: all the same). "
        "Imbalance: load of the busiest expert over the mean (1: all the same; at most N / K). The "
        "load counts all K choices: with K near N it is even whatever the router does. Clean "
        f"speech, {routed[0][1].utterances} utterances.",
        section=EXPERTS,
        rows=rows,
        table=(
            [
                "system",
                "router",
                "tokens of",
                "tokens",
                "evenness",
                "of first choices",
                "imbalance",
            ],
            lines,
        ),
        names=3,
    )
    for system, routing in routed:
        yield Exhibit(
            name=f"usage_{system.name}",
            title=f"Expert usage of {system.name}",
            caption="Share of tokens that have each expert as their first and as their second "
            f"choice, on {routing.utterances} utterances of clean speech.",
            section=EXPERTS,
            figure=figures.expert_usage(routing.usages),
            rows=[
                {
                    "router": u.router, "modality": u.modality, "expert": e + 1,
                    **{f"{c}_choice": round(float(share), 6) for c, share in
                       zip(CHOICES, u.shares[:, e], strict=False)},
                    "load": round(float(u.load[e]), 6), "tokens": u.tokens,
                }
                for u in routing.usages for e in range(u.counts.shape[1])
            ],
        )  # fmt: skip
        shown = routing.strip
        yield Exhibit(
            name=f"strip_{system.name}",
            title=f"Where {system.name} sends the tokens of {shown.uid}",
            caption="One utterance over time: the mouth, the waveform, and for each token the "
            "router's softmax (colour) with its first choice (filled) and second choice (ring). "
            "'Heard' is the decoded hypothesis on clean speech.",
            section=EXPERTS,
            figure=figures.strip(shown, _heard(system, shown.uid)),
            rows=[
                {
                    "router": r.router, "modality": r.modality,
                    "time": round(t * r.token_seconds, 4),
                    **{f"choice_{k + 1}": int(e) + 1 for k, e in enumerate(r.choices[t])},
                    **{f"p_{e + 1}": round(float(p), 6) for e, p in enumerate(r.probs[t])},
                }
                for r in _widest_first(shown.routes) for t in range(len(r.probs))
            ],
        )  # fmt: skip


def _widest_first(routes: Sequence[Route]) -> list[Route]:
    """Return the routes with the widest router first: an exhibit's first row names its columns."""
    return sorted(routes, key=lambda r: -r.probs.shape[1])


def _heard(system: System, uid: str) -> str:
    for condition, score in system.scores.items():
        hypotheses = score.path / "text"
        if condition.snr == CLEAN and hypotheses.is_file():
            texts = read_text(hypotheses)
            if uid in texts:
                return texts[uid]
    return UNKNOWN


def cost_exhibits(systems: Sequence[System], measured: dict[str, Measured]) -> Iterator[Exhibit]:
    """Show what systems consist of and what they take."""
    rows, lines = [], []
    parts = list(dict.fromkeys(p for m in measured.values() for p in m.routing.gflops))
    for system in systems:
        counted, gflops = measured[system.name].parameters, measured[system.name].routing.gflops
        clean = next((s.path for c, s in system.scores.items() if c.snr == CLEAN), None)
        cost = read_decode_cost(clean) if clean else DecodeCost()
        row = {"system": system.name}
        for part in fields(Parameters):
            row[f"parameters_{part.name}"] = getattr(counted, part.name) if counted else None
        row |= {f"gflop_per_second_{p.replace(' ', '_')}": _rounded(gflops.get(p)) for p in parts}
        row |= {"rtf": _rounded(cost.rtf), "memory_mib": cost.memory, "memory_of": cost.where}
        rows.append(row)
        lines.append(
            [
                system.name,
                *(_count(row[f"parameters_{name}"]) for name in ("total", "active", "trained")),
                *(_number(gflops.get(p)) for p in parts),
                _number(cost.rtf),
                f"{cost.memory:,.0f} ({cost.where})" if cost.memory else UNKNOWN,
            ]
        )
    header = ["system", "parameters", "active", "trained", *(f"{p}, GFLOP/s" for p in parts),
              "RTF", "memory, MiB"]  # fmt: skip
    known = [s for s in systems if measured[s.name].parameters]
    counts = [measured[s.name].parameters for s in known]
    with_flops = bool(known) and all(measured[s.name].routing.gflops for s in known)
    yield Exhibit(
        name="cost",
        title="What systems consist of and what they take",
        caption="Active: without the experts that a token does not go to. GFLOP per second of "
        "speech, a multiply-add counted as two; of the LLM for reading media tokens, prompt and "
        "text once (a beam of B makes the text's part B-fold). RTF and peak memory of a job as "
        "measured while decoding clean speech: they hold for the machine, its load, and the "
        "decoding config.",
        section=COST,
        figure=figures.costs(
            [s.name for s in known],
            {
                "in use": [(c.trained - c.total + c.active) / 1e6 for c in counts],
                "idle experts": [(c.total - c.active) / 1e6 for c in counts],
            },
            {p: [measured[s.name].routing.gflops.get(p, 0.0) for s in known] for p in parts}
            if with_flops
            else {},
        )
        if known
        else None,
        rows=rows,
        table=(header, lines),
    )


def training_exhibits(systems: Sequence[System]) -> Iterator[Exhibit]:
    """Show how training went."""
    curves: dict[str, dict[str, dict[int, float]]] = {}
    rows = []
    for system in systems:
        read = read_curves(system.path)
        for (part, name), curve in read.items():
            rows += [
                {"system": system.name, "part": part, "statistic": name, "epoch": e, "value": v}
                for e, v in curve.items()
            ]
            # A dense projector's losses are 0
            if part == "valid" and name in _CURVES and any(curve.values()):
                curves.setdefault(name, {})[system.name] = curve
    if curves:
        shown = {name: curves[name] for name in _CURVES if name in curves}
        yield Exhibit(
            name="training",
            title="Training, epoch by epoch",
            caption="On the validation set: share of target tokens predicted right, and the "
            "auxiliary losses before weighting, summed over routers (load balancing is K for each "
            "balanced router). The CSV file has all that the trainer reported, each expert's "
            "share among it.",
            section=TRAINING,
            figure=figures.training(shown, _CURVES),
            rows=rows,
        )


def _point(x: float, score: Score) -> Point:
    return Point(x, 100 * score.errors.rate, 100 * score.low, 100 * score.high)


def _rate_rows(systems: Sequence[System], where: Sequence[Condition]) -> list[dict]:
    return [
        {
            "task": system.task, "system": system.name, "test_set": condition.test_set,
            "noise": condition.noise, "snr": condition.snr,
            "rate": round(100 * score.errors.rate, 4), "low": round(100 * score.low, 4),
            "high": round(100 * score.high, 4), "errors": sum(score.errors.errors),
            "words": sum(score.errors.words), "utterances": len(score.errors.names),
            "speakers": len(set(score.errors.speakers)),
        }
        for system in systems for condition in where if (score := score_at(system, condition))
    ]  # fmt: skip


def _cell(score: Score | None) -> str:
    if score is None:
        return UNKNOWN
    return f"{100 * score.errors.rate:.2f} [{100 * score.low:.2f}, {100 * score.high:.2f}]"


def _level(condition: Condition) -> str:
    return CLEAN if condition.snr == CLEAN else f"{condition.noise} {condition.snr} dB"


def _count(number: float | None) -> str:
    if number is None:
        return UNKNOWN
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:g}"


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3g}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
