"""Figures in colours that colour-blind readers can distinguish, with a marker for each colour."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import matplotlib.patches
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from espnet_smop.modality import FRAME_RATE, SAMPLE_RATE
from espnet_smop.results.decodes import Score
from espnet_smop.results.expert_usage import CHOICES, Strip, Usage
from espnet_smop.results.over_seeds import Spread
from espnet_smop.results.phone_usage import PhoneUsage
from espnet_smop.results.phones import CLASSES

# Okabe and Ito's palette, its yellow (too pale for lines) replaced by grey.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#888888",
)  # fmt: skip
MARKS = "os^DvPX*"
LINES = ("-", "--", "-.", ":")
WIDE = 6.8
"""Inches: two columns of a page."""

_STYLE = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": "#dddddd", "grid.linewidth": 0.6, "lines.linewidth": 1.2,
    "lines.markersize": 4.5, "legend.frameon": False, "figure.constrained_layout.use": True,
    "svg.fonttype": "path", "font.family": "DejaVu Sans",
}  # fmt: skip


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Make a function draw in this module's style."""

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


def _errorbar(
    ax: Axes, x: Sequence[float], scores: Sequence[Score], label: str, index: int
) -> None:
    rates = [100 * score.rate for score in scores]
    ends = [[100 * end for end in score.interval] for score in scores]
    whiskers = [(rate - low, high - rate) for rate, (low, high) in zip(rates, ends, strict=True)]
    ax.errorbar(
        x, rates, yerr=np.maximum(np.transpose(whiskers), 0),  # rounding may go below 0
        label=label, capsize=2, elinewidth=0.8, **_look(index),
    )  # fmt: skip


@styled
def noise_curves(
    noisy: dict[str, dict[float, Score]], clean: dict[str, Score], label: str
) -> Figure:
    """Draw each system's error rate over noise levels, and on clean speech at the right.

    Args:
        noisy: system → signal-to-noise ratio in dB → score.
        clean: system → score on clean speech.
        label: name of the rate.
    """
    levels = sorted({x for by_level in noisy.values() for x in by_level})
    step = min(np.diff(levels), default=5.0)
    quiet = levels[-1] + 1.5 * step
    systems = list(dict.fromkeys([*noisy, *clean]))
    figure = Figure(figsize=(WIDE, 2.9 + 0.14 * ((len(systems) + 1) // 2)))
    ax = figure.subplots()
    for index, name in enumerate(systems):
        # Beside each other, so that no interval hides another.
        shift = (index - (len(systems) - 1) / 2) * 0.4 * step / max(len(systems), 4)
        by_level = noisy.get(name, {})
        if by_level:
            x = sorted(by_level)
            _errorbar(ax, np.add(x, shift), [by_level[level] for level in x], name, index)
        if name in clean:
            once = "_" if by_level else name  # a label with _ is left out of the legend
            _errorbar(ax, [quiet + shift], [clean[name]], once, index)
    ax.axvline(quiet - 0.75 * step, color="#888888", linewidth=0.6, linestyle=":")
    ax.set_xticks([*levels, quiet], [*(f"{x:g}" for x in levels), "clean"])
    ax.set_xlabel("Signal-to-noise ratio (dB)")
    ax.set_ylabel(label)
    ax.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def width_curves(panels: dict[str, dict[str, dict[int, Spread]]], label: str) -> Figure:
    """Draw mean error rates against width, with bars of a standard deviation over seeds.

    Args:
        panels: title → system → width → error rate.
        label: name of the rate.
    """
    columns = min(len(panels), 2)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(min(WIDE, 3.4 * columns), 0.4 + 2.2 * lines))
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    widths = sorted({w for curves in panels.values() for line in curves.values() for w in line})
    for ax, (title, curves) in zip(axes, panels.items(), strict=False):
        for index, name in enumerate(names):
            line = sorted(curves.get(name, {}).items())
            # Beside each other, so that no bar hides another.
            shift = 1.03 ** (2 * index - len(names) + 1)
            ax.errorbar(
                [width * shift for width, _ in line], [100 * spread.mean for _, spread in line],
                yerr=[100 * (spread.deviation or 0) for _, spread in line],
                label=name, capsize=2, elinewidth=0.8, **_look(index),
            )  # fmt: skip
        ax.set_xscale("log", base=2)
        ax.set_xticks(widths, map(str, widths))
        ax.minorticks_off()
        ax.set_xlabel("Hidden width")
        ax.set_ylabel(label)
        ax.set_title(title)
        ax.set_ylim(bottom=0)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@styled
def token_curves(curves: dict[str, dict[float, Score]], label: str) -> Figure:
    """Draw error rates over the number of tokens that the LLM reads, a curve for each task.

    Args:
        curves: name → tokens per second of speech → score.
        label: name of the rate.
    """
    figure = Figure(figsize=(WIDE, 2.9))
    ax = figure.subplots()
    for index, (name, by_tokens) in enumerate(curves.items()):
        x = sorted(by_tokens)
        _errorbar(ax, x, [by_tokens[tokens] for tokens in x], name, index)
    ax.set_xlabel("Audio and video tokens per second of speech")
    ax.set_ylabel(label)
    ax.set_ylim(bottom=0)
    ax.set_xlim(left=0)
    figure.legend(loc="outside lower center", ncols=3)
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
        ax.set_xticks(range(n))
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
def phone_usage(usages: Sequence[PhoneUsage]) -> Figure:
    """Draw the first choices of each phone class as a matrix, a panel per router."""
    figure = Figure(figsize=(min(WIDE, 1.2 + 2.8 * len(usages)), 2.6))
    axes = figure.subplots(1, len(usages), squeeze=False)[0]
    for ax, usage in zip(axes, usages, strict=True):
        found = usage.first
        shown = np.flatnonzero(found.tokens)
        tokens = found.tokens[shown].astype(int)
        shares = 100 * found.table[shown] / tokens[:, None]
        ax.imshow(shares, cmap="cividis", vmin=0, vmax=100, aspect="auto")
        for (row, expert), share in np.ndenumerate(shares):
            colour = "black" if share > 50 else "white"
            ax.text(expert, row, f"{share:.0f}", ha="center", va="center", color=colour, fontsize=7)
        ax.set_xticks(range(shares.shape[1]))
        ax.set_yticks(
            range(len(shown)),
            [f"{CLASSES[c]} ({n:,})" for c, n in zip(shown, tokens, strict=True)],
        )
        ax.set_xlabel("Expert")
        ax.grid(visible=False)
        shared = "" if usage.router == usage.modality else f" ({usage.router} router)"
        ax.set_title(
            f"{usage.modality}{shared}: mutual information\n{found.information:.3f} of "
            f"{found.entropy:.2f} bits, by chance {found.chance:.3f}"
        )
    axes[0].set_ylabel("Class of the phone (tokens)")
    return figure


@styled
def layer_usage(usages: Sequence[Usage]) -> Figure:
    """Draw each expert's load in each layer of the LLM, a panel per view."""
    views = list(dict.fromkeys(usage.modality for usage in usages))
    loads = {v: np.array([u.load for u in usages if u.modality == v]) for v in views}
    layers = len(loads[views[0]])
    figure = Figure(figsize=(WIDE, (0.7 + 0.13 * layers) * len(views)))
    axes = figure.subplots(len(views), 1, squeeze=False, sharex=True)[:, 0]
    for ax, (view, load) in zip(axes, loads.items(), strict=True):
        image = ax.imshow(100 * load, cmap="cividis", vmin=0, aspect="auto")
        figure.colorbar(image, ax=ax, fraction=0.03, pad=0.01).set_label("load (%)")
        ax.grid(visible=False)
        ax.set_ylabel("Layer")
        ax.set_title(view)
    axes[-1].set_xlabel("Expert")
    return figure


@styled
def strip(shown: Strip, heard: str) -> Figure:
    """Draw an utterance over time: mouth, waveform, and the experts of each token."""
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
        # The extremes of 1,500 segments look like the waveform, in a small file.
        stretches = np.array_split(shown.speech, min(1500, len(shown.speech)))
        times = np.linspace(0, len(shown.speech) / SAMPLE_RATE, len(stretches))
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
            edges, np.arange(n + 1) - 0.5, route.probs.T, cmap="cividis", vmin=0, vmax=1
        )
        middles = edges[:-1] + route.token_seconds / 2
        for choice, (size, face) in enumerate(((11, "white"), (7, "none"))):
            if choice < route.choices.shape[1]:
                ax.scatter(
                    middles, route.choices[:, choice], s=size, facecolors=face,
                    edgecolors="black" if choice == 0 else "white", linewidths=0.6,
                    label=f"{CHOICES[choice]} choice",
                )  # fmt: skip
        ax.set_yticks(range(n))
        ax.set_ylim(n - 0.5, -0.5)
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
    said = "" if shown.text is None else f"said:  {shown.text}\n"
    figure.suptitle(f"{said}heard: {heard}", x=0.01, ha="left", fontsize=8)
    return figure


def _mouths(ax: Axes, shown: Strip, seconds: float) -> None:
    """Draw mouth crops side by side, each at its time."""
    width = 0.62 / (WIDE - 1.4) * seconds  # about square
    count = max(1, int(seconds / width))
    for k in range(count):
        left = k * seconds / count
        frame = int((left + seconds / count / 2) * FRAME_RATE)
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
