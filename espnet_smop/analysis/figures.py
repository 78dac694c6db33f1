"""The figures: colours that colour-blind readers tell apart, and marks beside each colour."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple

import matplotlib.patches
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from espnet_smop.analysis.strip import Strip
from espnet_smop.analysis.usage import CHOICES, Usage

# Okabe and Ito's palette, its yellow (too pale for lines) replaced by grey.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#888888",
)  # fmt: skip
MARKS = "os^DvPX*"
LINES = ("-", "--", "-.", ":")
WIDE, NARROW = 6.8, 3.4
"""Inches: two columns and one of a page."""

_STYLE = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": "#dddddd", "grid.linewidth": 0.6, "lines.linewidth": 1.2,
    "lines.markersize": 4.5, "legend.frameon": False, "figure.constrained_layout.use": True,
    "svg.fonttype": "path", "font.family": "DejaVu Sans",
}  # fmt: skip


class Point(NamedTuple):
    """An error rate with its interval, in per cent."""

    x: float
    rate: float
    low: float
    high: float


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Let a function draw in this module's style."""

    @wraps(draw)
    def wrapped(*args: Any, **kwargs: Any) -> Figure:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return wrapped


def _look(index: int) -> dict[str, Any]:
    # Eight colours with a mark each; from the ninth on the lines differ as well.
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKS[index % len(MARKS)],
        "linestyle": LINES[(index // len(COLOURS)) % len(LINES)],
    }


def _errorbar(ax: Axes, points: Sequence[Point], shift: float, label: str, index: int) -> None:
    ax.errorbar(
        [p.x + shift for p in points], [p.rate for p in points], yerr=_whiskers(points),
        label=label, capsize=2, elinewidth=0.8, **_look(index),
    )  # fmt: skip


def _whiskers(points: Sequence[Point]) -> np.ndarray:
    """Return how far an interval reaches below and above each point, (2, points)."""
    ends = [[p.rate - p.low for p in points], [p.high - p.rate for p in points]]
    return np.maximum(ends, 0)  # rounding may leave a hair less


@styled
def dots(names: Sequence[str], points: Sequence[Point], label: str) -> Figure:
    """Draw a rate with its interval for each system, from top to bottom."""
    figure = Figure(figsize=(WIDE, 0.9 + 0.28 * len(names)))
    ax = figure.subplots()
    for row, point in enumerate(points):
        look = _look(row) | {"linestyle": "none"}
        ax.errorbar(point.rate, row, xerr=_whiskers([point]), capsize=2, elinewidth=1, **look)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel(label)
    ax.grid(axis="y", visible=False)
    return figure


@styled
def against_snr(lines: dict[str, list[Point]], clean: dict[str, Point], label: str) -> Figure:
    """Draw a line over the noise levels for each system, and clean speech apart at the right.

    Args:
        lines: system → points with x in dB.
        clean: system → its point on clean speech.
        label: of the rate.
    """
    levels = sorted({p.x for points in lines.values() for p in points})
    step = min(np.diff(levels), default=5.0)
    quiet = levels[-1] + 1.5 * step
    systems = list(dict.fromkeys([*lines, *clean]))
    figure = Figure(figsize=(WIDE, 2.9 + 0.14 * ((len(systems) + 1) // 2)))
    ax = figure.subplots()
    for index, name in enumerate(systems):
        # Beside each other, so that no interval hides another.
        shift = (index - (len(systems) - 1) / 2) * 0.4 * step / max(len(systems), 4)
        if lines.get(name):
            _errorbar(ax, sorted(lines[name]), shift, name, index)
        if name in clean:
            label_it = name if not lines.get(name) else "_"
            _errorbar(ax, [clean[name]._replace(x=quiet)], shift, label_it, index)
    ax.axvline(quiet - 0.75 * step, color="#888888", linewidth=0.6, linestyle=":")
    ax.set_xticks([*levels, quiet], [*(f"{x:g}" for x in levels), "clean"])
    ax.set_xlabel("Signal-to-noise ratio (dB)")
    ax.set_ylabel(label)
    ax.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def against_number(
    lines: dict[str, list[Point]], x_label: str, y_label: str, *, log: bool = False,
    labels: dict[float, str] | None = None,
) -> Figure:  # fmt: skip
    """Draw rates over a number that systems differ in; ``labels`` name some of its values."""
    figure = Figure(figsize=(WIDE, 2.6 + 0.14 * ((len(lines) + 1) // 2)))
    ax = figure.subplots()
    for index, (name, points) in enumerate(lines.items()):
        _errorbar(ax, sorted(points), 0.0, name, index)
    values = sorted({p.x for points in lines.values() for p in points})
    if log:
        ax.set_xscale("log")
    ax.set_xticks(values, [(labels or {}).get(x, f"{x:g}") for x in values])
    ax.minorticks_off()
    ax.set_xlabel(x_label)
    ax.set_ylabel(y_label)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def expert_usage(usages: Sequence[Usage]) -> Figure:
    """Draw each expert's share of tokens as first and as second choice, a panel per router."""
    figure = Figure(figsize=(min(WIDE, 0.6 + 3.1 * len(usages)), 2.6))
    axes = figure.subplots(1, len(usages), squeeze=False, sharey=True)[0]
    for ax, usage in zip(axes, usages, strict=True):
        shares = 100 * usage.shares[: len(CHOICES)]
        n = shares.shape[1]
        for choice, row in enumerate(shares):
            bars = ax.bar(
                np.arange(n) + (choice - 0.5 * (len(shares) - 1)) * 0.4, row, 0.38,
                color=COLOURS[choice], edgecolor="black", linewidth=0.5,
                hatch=("", "///")[choice], label=f"{CHOICES[choice]} choice",
            )  # fmt: skip
            ax.bar_label(bars, fmt="%.0f", fontsize=6, padding=1)
        ax.axhline(
            100 / n, color="black", linestyle="--", linewidth=0.9, zorder=0.5,
            label="equal share, 1/N",
        )  # fmt: skip
        ax.set_xticks(range(n), [str(e + 1) for e in range(n)])
        ax.set_xlabel("Expert")
        ax.grid(axis="x", visible=False)
        shared = "" if usage.router == usage.modality else f" ({usage.router} router)"
        ax.set_title(
            f"{usage.modality}{shared}, {usage.tokens:,} tokens\n"
            f"evenness {usage.evenness:.2f} (first choice {usage.first_evenness:.2f}), "
            f"imbalance {usage.imbalance:.2f}"
        )
    axes[0].set_ylabel("Share of tokens (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


@styled
def strip(shown: Strip, heard: str) -> Figure:
    """Draw an utterance over time: mouth, waveform, and where each router sends its tokens."""
    heights = {"video": 0.75, "speech": 0.75}
    rows = [name for name in heights if getattr(shown, name) is not None]
    sizes = [heights[name] for name in rows]
    sizes += [0.35 + 0.2 * route.probs.shape[1] for route in shown.routes]
    figure = Figure(figsize=(WIDE, sum(sizes) + 0.9))
    axes = figure.subplots(len(sizes), 1, squeeze=False, height_ratios=sizes, sharex=True)[:, 0]
    seconds = max(len(r.choices) * r.token_seconds for r in shown.routes)
    if shown.video is not None:
        _mouths(axes[rows.index("video")], shown, seconds)
    if shown.speech is not None:
        ax = axes[rows.index("speech")]
        # The extremes of 1,500 stretches look like the waveform, and are a small file.
        stretches = np.array_split(shown.speech, min(1500, len(shown.speech)))
        times = np.linspace(0, len(shown.speech) / shown.sample_rate, len(stretches))
        low, high = [s.min() for s in stretches], [s.max() for s in stretches]
        ax.fill_between(times, low, high, color="black", linewidth=0.2)
        peak = float(np.abs(shown.speech).max()) or 1.0
        ax.set_ylim(-1.05 * peak, 1.05 * peak)
        ax.set_yticks([0])
        ax.set_ylabel("wave\n(± its peak)", rotation=0, ha="right", va="center")
    for ax, route in zip(axes[len(rows) :], shown.routes, strict=True):
        n = route.probs.shape[1]
        edges = np.arange(len(route.probs) + 1) * route.token_seconds
        image = ax.pcolormesh(
            edges, np.arange(n + 1) + 0.5, route.probs.T, cmap="cividis", vmin=0, vmax=1
        )
        middles = edges[:-1] + route.token_seconds / 2
        for choice, (size, face) in enumerate(((11, "white"), (7, "none"))):
            if choice < route.choices.shape[1]:
                ax.scatter(
                    middles, route.choices[:, choice] + 1, s=size, facecolors=face,
                    edgecolors="black" if choice == 0 else "white", linewidths=0.6,
                    label=f"{CHOICES[choice]} choice",
                )  # fmt: skip
        ax.set_yticks(range(1, n + 1))
        ax.set_ylim(n + 0.5, 0.5)
        ax.grid(visible=False)
        shared = "" if route.router == route.modality else f"\n({route.router})"
        ax.set_ylabel(f"{route.modality}\nexpert{shared}", rotation=0, ha="right", va="center")
    axes[-1].set_xlabel("Time (s)")
    axes[-1].set_xlim(0, seconds)
    bar = figure.colorbar(image, ax=axes[len(rows) :], fraction=0.03, pad=0.01)
    bar.set_label("router probability")
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=2,
        frameon=True, facecolor="#666666", labelcolor="white",
    )  # fmt: skip
    figure.suptitle(f"said:  {shown.text}\nheard: {heard}", x=0.01, ha="left", fontsize=8)
    return figure


def _mouths(ax: Axes, shown: Strip, seconds: float) -> None:
    """Draw pictures side by side, each where its time is."""
    width = 0.62 / (WIDE - 1.4) * seconds  # about square
    count = max(1, int(seconds / width))
    for k in range(count):
        left = k * seconds / count
        frame = int((left + seconds / count / 2) * shown.video_rate)
        if frame < len(shown.video):
            ax.imshow(
                shown.video[frame], cmap="gray", vmin=0, vmax=255, aspect="auto",
                extent=(left, left + 0.96 * seconds / count, 0, 1),
            )  # fmt: skip
    ax.set_ylim(0, 1)
    ax.set_yticks([])
    ax.grid(visible=False)
    ax.set_ylabel("mouth", rotation=0, ha="right", va="center")


@styled
def significance(
    names: Sequence[str], cells: dict[tuple[int, int], tuple[float, bool]], unit: str
) -> Figure:
    """Draw a matrix: row's rate minus column's in points, coloured where it is significant.

    Args:
        names: systems.
        cells: (row, column), below the diagonal → (difference in points, whether significant).
        unit: name of the rate.
    """
    n = len(names)
    figure = Figure(figsize=(min(WIDE, 2.6 + 0.52 * n), 1.8 + 0.3 * n))
    ax = figure.subplots()
    for (row, column), (difference, significant) in cells.items():
        colour = "white"
        if significant:
            colour = "#9ecae9" if difference < 0 else "#f7c28f"
        ax.add_patch(
            matplotlib.patches.Rectangle(
                (column - 0.5, row - 0.5),
                1,
                1,
                facecolor=colour,
                edgecolor="#999999",
                linewidth=0.5,
                hatch="///" if significant and difference > 0 else "",
            )
        )  # fmt: skip
        ax.text(
            column, row, f"{round(difference, 1) + 0.0:+.1f}{'*' * significant}",  # not -0.0
            ha="center", va="center", fontsize=min(7, 70 / n),
            weight="bold" if significant else "normal",
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip
    # The cells are those below the diagonal.
    ax.set_xlim(-0.5, n - 1.5)
    ax.set_ylim(n - 0.5, 0.5)
    ax.set_xticks(range(n - 1), names[:-1], rotation=40, ha="right")
    ax.set_yticks(range(1, n), names[1:])
    ax.set_ylabel("A")
    ax.set_xlabel("B")
    ax.grid(visible=False)
    patches = [
        matplotlib.patches.Patch(facecolor=c, edgecolor="#999999", hatch=h, label=t)
        for c, h, t in (
            ("#9ecae9", "", "A better than B *"),
            ("#f7c28f", "///", "A worse than B *"),
            ("white", "", "no significant difference"),
        )
    ]
    figure.legend(
        handles=patches, loc="outside lower center", ncols=3, title=f"{unit}(A) − {unit}(B), points"
    )
    return figure


@styled
def costs(
    names: Sequence[str], parameters: dict[str, Sequence[float]], gflops: dict[str, Sequence[float]]
) -> Figure:
    """Draw trained parameters, in use or idle, and operations per second of speech by part."""
    panels = [p for p in (parameters, gflops) if p]
    labels = [x for x, p in (("Trained parameters (million)", parameters),
                             ("GFLOP per second of speech", gflops)) if p]  # fmt: skip
    figure = Figure(figsize=(WIDE, 1.3 + 0.3 * len(names)))
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    hatches = ("", "///", "--", "xx")
    for ax, panel, label in zip(axes, panels, labels, strict=True):
        left = np.zeros(len(names))
        for k, (part, values) in enumerate(panel.items()):
            ax.barh(
                range(len(names)), values, 0.7, left=left, label=part, hatch=hatches[k % 4],
                color=COLOURS[(k + 4 * (panel is parameters)) % 8], edgecolor="black",
                linewidth=0.5,
            )  # fmt: skip
            left += np.asarray(values)
        ax.set_xlabel(label)
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.grid(axis="y", visible=False)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


@styled
def training(curves: dict[str, dict[str, dict[int, float]]], labels: dict[str, str]) -> Figure:
    """Draw statistics over epochs, a panel each and a line for each system.

    Args:
        curves: statistic → system → epoch → value.
        labels: statistic → name of its axis.
    """
    systems = list(dict.fromkeys(name for by_system in curves.values() for name in by_system))
    figure = Figure(figsize=(WIDE, 2.2 + 0.14 * ((len(systems) + 1) // 2)))
    axes = figure.subplots(1, len(curves), squeeze=False)[0]
    for ax, (statistic, by_system) in zip(axes, curves.items(), strict=True):
        for index, name in enumerate(systems):
            curve = by_system.get(name, {})
            if curve:
                ax.plot(list(curve), list(curve.values()), label=name, **_look(index))
        ax.set_xlabel("Epoch")
        ax.set_ylabel(labels[statistic])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if statistic == "acc":
            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    handles = {}
    for ax in axes:
        handles |= {label: h for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    return figure
