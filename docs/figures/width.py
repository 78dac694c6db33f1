"""Draw error rates over the hidden width of the experts.

The rates are those that ``local/run_width.sh`` of the mini recipe writes. Example::

    cp egs2/mini_lrs3/avsr_smop1/exp/width/width.csv docs/figures/mini_lrs3_width.csv
    python docs/figures/width.py
"""

import csv
import io
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from PIL import Image
from themes import THEMES, matplotlib_style

HERE = Path(__file__).parent
RATES = HERE / "mini_lrs3_width.csv"
SYSTEMS = {"dense same active": "dense, as many active parameters", "smop4 dedr": "SMoP-4 DEDR"}
CONDITIONS = {"clean": "clean", "0": "babble, 0 dB"}

Points = list[tuple[int, float, float]]
"""Width, mean and standard deviation over seeds in %."""


def read(path: Path) -> dict[tuple[str, str], Points]:
    """Return (system, condition) → points."""
    curves: dict[tuple[str, str], Points] = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            points = curves.setdefault((row["system"], row["snr"]), [])
            points.append((int(row["width"]), float(row["mean"]), float(row["deviation"])))
    return curves


def draw(curves: dict[tuple[str, str], Points], theme: dict) -> Figure:
    """Return a panel for each condition with a curve for each system."""
    figure = Figure(figsize=(5.6, 2.3))
    figure.subplots_adjust(0.08, 0.19, 0.99, 0.8, wspace=0.2)
    axes = figure.subplots(1, len(CONDITIONS))
    for ax, (snr, title) in zip(axes, CONDITIONS.items(), strict=True):
        for index, (system, label) in enumerate(SYSTEMS.items()):
            width, mean, deviation = zip(*sorted(curves[system, snr]), strict=True)
            shift = 1.03 ** (2 * index - 1)  # so that no bar hides another
            ax.errorbar(
                [w * shift for w in width], mean, deviation, color=theme["series"][index],
                marker="os"[index], markersize=4.5, linewidth=1.5, elinewidth=1, capsize=2.5,
                label=label,
            )  # fmt: skip
        ax.set_xscale("log", base=2)
        ax.set_xticks(width, map(str, width))
        ax.minorticks_off()
        ax.set_xlabel("hidden width of an expert")
        ax.set_ylim(bottom=0)
        ax.set_title(title, fontsize=8.5, loc="left", pad=3)
        ax.grid(axis="y", color=theme["line"], alpha=0.3, linewidth=0.6)
        ax.set_axisbelow(True)
    axes[0].set_ylabel("WER (%)", labelpad=1)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="upper right", ncols=2, frameon=False,
        borderaxespad=0,
    )  # fmt: skip
    return figure


def main() -> None:
    """Write ``width_{light,dark}.png`` beside this script."""
    curves = read(RATES)
    for name, theme in THEMES.items():
        with matplotlib.rc_context(matplotlib_style(theme)):
            draw(curves, theme).savefig(picture := io.BytesIO(), dpi=200)
        Image.open(picture).quantize(64).save(HERE / f"width_{name}.png", optimize=True)


if __name__ == "__main__":
    main()
