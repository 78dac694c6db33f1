#!/usr/bin/env python3
"""Print a short table of error rates: a row for each system, a column for each noise level.

Each figure has its 95 % bootstrap interval. ``--compare A B`` tells instead whether two experiments
differ significantly in what both have decoded, or two decode directories of the same test set
(paired bootstrap).

Example::

    python -m espnet_smop.bin.show_table exp
    python -m espnet_smop.bin.show_table exp/avsr_train_asr_smop4 exp/avsr_train_avsr_smop3_dedr
    python -m espnet_smop.bin.show_table --compare exp/avsr_A exp/avsr_B
    python -m espnet_smop.bin.show_table --compare exp/avsr_A/decode/test exp/avsr_B/decode/test
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_smop.analysis.bootstrap import interval, paired
from espnet_smop.analysis.systems import TASKS, unique_names
from espnet_smop.bin.config_modalities import modalities
from espnet_smop.scoring.decodes import CLEAN, Decode, find_decodes, read_errors
from espnet_smop.scoring.transcripts import ScoringError

Noise = tuple[str, str]
"""Name of a noise and decibels, of clean speech ``("", CLEAN)``."""


def find_experiments(paths: Sequence[Path]) -> list[Path]:
    """Return the experiments among the paths and one level below them."""
    found = []
    for path in paths:
        if not path.is_dir():
            raise ScoringError(f"{path} is not a directory")
        candidates = [path] if (path / "config.yaml").is_file() else sorted(path.glob("*/"))
        found += [p for p in candidates if (p / "config.yaml").is_file()]
    return found


def table(experiments: Sequence[Path], *, metric: str, unit: str) -> str:
    """Return the table; empty if nothing is scored yet."""
    decodes: dict[tuple[str, str, str], dict[Noise, Decode]] = {}
    spelt = {}
    experiments = list(dict.fromkeys(experiments))
    for experiment, name in zip(experiments, unique_names(experiments), strict=True):
        task = _task(experiment)
        for test, decoded in _by_test(experiment, metric).items():
            decodes[name, *test] = decoded
            spelt[name, *test] = task
    if not decodes:
        return ""
    columns = sorted({at for decoded in decodes.values() for at in decoded}, key=_column_order)
    noises = list(dict.fromkeys(noise for noise, _ in columns if noise))
    several = {part: len({key[part] for key in decodes}) > 1 for part in (1, 2)}

    header = ["task", "system"]
    for noise, snr in columns:
        level = snr if snr == CLEAN else f"{snr} dB"
        header.append(f"{noise} {level}" if noise and len(noises) > 1 else level)
    rows = []
    for key, decoded in decodes.items():
        cells = {at: _cell(decode, metric, unit) for at, decode in decoded.items()}
        if spelt[key] == "VSR" and ("", CLEAN) in cells:
            # Lips are the same whatever the noise.
            cells = dict.fromkeys(columns, cells["", CLEAN])
        name = " ".join([key[0], *(key[part] for part in (1, 2) if several[part])])
        rows.append([spelt[key], name, *(cells.get(at, "-") for at in columns)])

    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(f"{x:<{w}}" for x, w in zip(r, widths, strict=True)) for r in [header, *rows]
    ]
    lines.insert(1, "  ".join("-" * w for w in widths))
    of = {"utterance": "utterances", "speaker": "speakers"}[unit]
    title = f"{metric.upper()} in %, with 95 % bootstrap intervals over {of}"
    if noises:
        title += f"; noise: {', '.join(noises)}"
    return "\n".join([title, *(line.rstrip() for line in lines)])


def _column_order(at: Noise) -> tuple[str, float]:
    """Clean, whose noise has no name, is first; then the noises, each from little to much."""
    noise, snr = at
    return noise, 0.0 if snr == CLEAN else -float(snr)


def _cell(decode: Decode, metric: str, unit: str) -> str:
    scored = read_errors(decode.path, metric)
    groups = scored.speakers if unit == "speaker" else None
    low, high = interval(scored.errors, scored.words, groups=groups)
    return f"{100 * scored.rate:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def comparison(a: Path, b: Path, *, metric: str, unit: str) -> str:
    """Return a sentence about the difference of two decode directories.

    Raises:
        ScoringError: they are not of the same utterances.
    """
    scored_a, scored_b = read_errors(a, metric), read_errors(b, metric)
    if (scored_a.names, scored_a.words) != (scored_b.names, scored_b.words):
        raise ScoringError(f"{a} and {b} are not of the same utterances and references")
    groups = scored_a.speakers if unit == "speaker" else None
    c = paired(scored_a.errors, scored_b.errors, scored_a.words, groups=groups)
    verdict = "significant" if c.p_value < 0.05 else "not significant"
    p_value = f"p = {c.p_value:.4f}" if c.p_value else "p < 0.001"
    return (
        f"{metric.upper()} A {100 * scored_a.rate:.2f} %, B {100 * scored_b.rate:.2f} %, "
        f"A - B = {100 * c.difference:+.2f} [{100 * c.low:+.2f}, {100 * c.high:+.2f}], "
        f"{p_value}: {verdict} at 5 % (paired bootstrap over {unit}s)"
    )


def comparisons(a: Path, b: Path, *, metric: str, unit: str) -> list[str]:
    """Return a sentence on each test set and noise that both experiments have decoded.

    What was read from lips alone is compared with every noise level of the other.

    Raises:
        ScoringError: there is nothing that both have decoded and scored.
    """
    lines = []
    found = [_by_test(experiment, metric) for experiment in (a, b)]
    tasks = [_task(experiment) for experiment in (a, b)]
    for test in sorted(found[0].keys() & found[1].keys()):
        decodes = [one[test] for one in found]
        for at in sorted({*decodes[0], *decodes[1]}, key=_column_order):
            pair = [
                one.get(("", CLEAN) if task == "VSR" else at)
                for one, task in zip(decodes, tasks, strict=True)
            ]
            if all(pair):
                level = f"{at[0]} {at[1]} dB" if at[0] else CLEAN
                sentence = comparison(*(d.path for d in pair), metric=metric, unit=unit)
                lines.append(f"{test[0]} {test[1]} {level}: {sentence}")
    if not lines:
        raise ScoringError(f"{a} and {b} have no scored test set in common: run stages 12 and 13")
    return lines


def _by_test(experiment: Path, metric: str) -> dict[tuple[str, str], dict[Noise, Decode]]:
    """Return the decode directories by decoding and test set, and by noise."""
    found: dict[tuple[str, str], dict[Noise, Decode]] = {}
    for decode in find_decodes(experiment, metric):
        test = found.setdefault((decode.path.parent.name, decode.test_set), {})
        test[decode.noise, decode.snr] = decode
    return found


def _task(experiment: Path) -> str:
    return TASKS[tuple(modalities(experiment / "config.yaml"))]


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("exp", nargs="*", type=Path, help="Experiments, or directories of such")
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A", "B"),
        help="Two experiments, or two decode directories",
    )  # fmt: skip
    parser.add_argument("--metric", choices=("wer", "cer"), default="wer")
    parser.add_argument(
        "--unit",
        choices=("utterance", "speaker"),
        default="utterance",
        help="What the bootstrap draws; speakers where there are many (default: utterance)",
    )
    return parser


def main(cmd: Sequence[str] | None = None) -> None:
    """Print the table or the comparison."""
    parser = get_parser()
    args = parser.parse_args(cmd)
    if bool(args.exp) == bool(args.compare):
        parser.error("give experiments, or --compare A B")
    try:
        if args.compare:
            options = {"metric": args.metric, "unit": args.unit}
            if all((path / "config.yaml").is_file() for path in args.compare):
                print("\n".join(comparisons(*args.compare, **options)))
            else:
                print(comparison(*args.compare, **options))
            return
        text = table(find_experiments(args.exp), metric=args.metric, unit=args.unit)
        print(text or "no scored decode directory yet: run stages 12 and 13")
    except (ScoringError, OSError, ValueError) as e:
        sys.exit(f"show_table: {e}")


if __name__ == "__main__":
    main()
