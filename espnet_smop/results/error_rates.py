"""Error rates of systems as a table, and sentences about their differences."""

from collections.abc import Sequence
from pathlib import Path

from espnet_smop.results.decodes import Condition, Score
from espnet_smop.results.systems import System, conditions, read_systems
from espnet_smop.results.transcripts import ScoringError
from espnet_smop.text_table import text_table

UNKNOWN = "-"


def level_names(levels: Sequence[Condition]) -> list[str]:
    """Return headings of noise levels, with the name of the noise if there are several."""
    several = len({c.noise for c in levels if c.noise}) > 1
    return [c.level if several or not c.noise else f"{c.snr} dB" for c in levels]


def rate_table(systems: Sequence[System]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: a row for each system and test set, a column for each noise level.

    Models of several rates add columns for the number of tokens and the real-time factor of
    decoding.
    """
    levels = {Condition("", c.noise, c.snr) for c in conditions(systems)}
    levels = sorted(levels, key=lambda c: c.order)
    at_rates = any(system.view and system.view.rates for system in systems)
    header = ["task", "system", *(["tokens/s", "RTF"] if at_rates else []), *level_names(levels)]
    keys = [
        (system, test_set)
        for system in systems
        for test_set in dict.fromkeys(c.test_set for c in system.scores if system.at(c))
    ]
    several_sets = len({test_set for _, test_set in keys}) > 1
    rows = []
    for system, test_set in keys:
        name = f"{system.name} {test_set}" if several_sets else system.name
        scores = [system.at(level._replace(test_set=test_set)) for level in levels]
        cells = [UNKNOWN if score is None else str(score) for score in scores]
        costs = [UNKNOWN, UNKNOWN]
        if system.costs is not None and system.costs.media_tokens:
            costs = [f"{system.costs.tokens_per_second:.1f}", f"{system.costs.rtf:.3g}"]
        rows.append([system.task, name, *(costs if at_rates else []), *cells])
    return header, rows


def error_rates(experiments: Sequence[Path], *, metric: str, unit: str) -> str:
    """Return the table as text; empty if nothing is scored yet."""
    systems = read_systems(experiments, metric=metric, unit=unit)
    header, rows = rate_table(systems)
    if not rows:
        return ""
    title = f"{metric.upper()} in %, with 95 % bootstrap intervals over {unit}s"
    noises = sorted({c.noise for c in conditions(systems) if c.noise})
    if noises:
        title += f"; noise: {', '.join(noises)}"
    return f"{title}\n{text_table(header, rows)}"


def describe_difference(a: Score, b: Score, *, metric: str) -> str:
    """Return a sentence about the difference of two decodings.

    Raises:
        ScoringError: they are not of the same utterances.
    """
    c = a.compare(b)
    verdict = "significant" if c.p_value < 0.05 else "not significant"
    p_value = f"p = {c.p_value:.4f}" if c.p_value else "p < 0.001"
    return (
        f"{metric.upper()} A {100 * a.rate:.2f} %, B {100 * b.rate:.2f} %, "
        f"A - B = {100 * c.difference:+.2f} [{100 * c.low:+.2f}, {100 * c.high:+.2f}], "
        f"{p_value}: {verdict} at 5 % (paired bootstrap over {a.unit}s)"
    )


def describe_differences(a: Path, b: Path, *, metric: str, unit: str) -> list[str]:
    """Return a sentence on each test set and noise level that both experiments have decoded.

    A system that reads lips alone is compared under every noise level of the other.

    Raises:
        ScoringError: there is nothing that both have decoded and scored.
    """
    one, other = (
        {system.tag: system for system in read_systems([path], metric=metric, unit=unit)}
        for path in (a, b)
    )
    lines = []
    for tag in sorted(one.keys() & other.keys()):
        for condition in conditions([one[tag], other[tag]]):
            pair = one[tag].at(condition), other[tag].at(condition)
            if all(pair):
                sentence = describe_difference(*pair, metric=metric)
                lines.append(f"{tag} {condition.test_set} {condition.level}: {sentence}")
    if not lines:
        raise ScoringError(f"{a} and {b} have no scored test set in common: run stages 12 and 13")
    return lines
