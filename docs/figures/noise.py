"""Draw error rates over noise, and print them as the README's table.

The rates are ``figures/rates.csv`` of a report. Example, for the mini recipe's::

    cp egs2/mini_lrs3/avsr_smop1/exp/report/figures/rates.csv docs/figures/mini_lrs3_rates.csv
    python docs/figures/noise.py
"""

import csv
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from themes import THEMES, matplotlib_style

HERE = Path(__file__).parent
RATES = HERE / "mini_lrs3_rates.csv"
CONDITIONS = ("clean", "5", "0", "-5")
TASKS = ("AVSR", "ASR", "VSR")


def read(path: Path) -> dict[str, list[tuple[float, float, float]]]:
    """Return task → for each condition the rate in % and the ends of its interval."""
    with path.open(encoding="utf-8") as file:
        cells = {
            (row["task"], row["snr"]): tuple(float(row[c]) for c in ("rate", "low", "high"))
            for row in csv.DictReader(file)
        }
    return {task: [cells[task, condition] for condition in CONDITIONS] for task in TASKS}


def table(rates: dict[str, list[tuple[float, float, float]]]) -> str:
    """Return the rates in Markdown; those of lips alone do not depend on noise."""
    lines = ["| | clean | 5 dB | 0 dB | −5 dB |", "|---|---|---|---|---|"]
    for task in TASKS:
        cells = [f"{rate:.1f}" for rate, _, _ in rates[task]]
        if task == "VSR":
            cells = [cells[0], "", "", ""]
        lines.append(f"| {task} | {' | '.join(cells)} |".replace("  ", " "))
    return "\n".join(lines)


def draw(rates: dict[str, list[tuple[float, float, float]]], theme: dict) -> Figure:
    """Return a curve for each task, with intervals."""
    figure = Figure(figsize=(4.2, 2.3))
    figure.subplots_adjust(0.105, 0.19, 0.86, 0.97)
    ax = figure.subplots()
    colours = dict(zip(("ASR", "AVSR", "VSR"), theme["series"], strict=True))
    for (task, points), mark in zip(rates.items(), "so^", strict=True):
        rate, low, high = zip(*points, strict=True)
        whiskers = [[r - e for r, e in zip(rate, low, strict=True)]]
        whiskers += [[e - r for r, e in zip(rate, high, strict=True)]]
        ax.errorbar(
            range(len(rate)), rate, whiskers, color=colours[task], marker=mark, markersize=4.5,
            linewidth=1.5, elinewidth=1, capsize=2.5,
        )  # fmt: skip
    # Beside the ends of the curves; two of them are close.
    for task, shift in (("ASR", 0), ("AVSR", 1.5), ("VSR", -1.5)):
        ax.text(
            len(CONDITIONS) - 0.88, rates[task][-1][0] + shift, task, color=colours[task],
            weight="bold", va="center",
        )  # fmt: skip
    ax.set_xticks(range(len(CONDITIONS)), ("clean", "5 dB", "0 dB", "−5 dB"))
    ax.set_xlabel("babble noise")
    ax.set_ylabel("WER (%)", labelpad=1)
    ax.set_ylim(bottom=0)
    ax.set_xlim(-0.15, len(CONDITIONS) - 0.95)
    ax.grid(axis="y", color=theme["line"], alpha=0.3, linewidth=0.6)
    ax.set_axisbelow(True)
    return figure


def main() -> None:
    """Write ``noise_{light,dark}.svg`` beside this script and print the table."""
    rates = read(RATES)
    for name, theme in THEMES.items():
        with matplotlib.rc_context(matplotlib_style(theme)):
            draw(rates, theme).savefig(HERE / f"noise_{name}.svg", metadata={"Date": None})
    print(table(rates))


if __name__ == "__main__":
    main()
