"""Colours of the figures on light and on dark pages: GitHub's ink, Okabe and Ito's palette."""

LIGHT = {
    "ink": "#1f2328", "faint": "#59636e", "line": "#818b98", "group": "#f6f8fa",
    "frozen": "#dbeafe", "frozen_line": "#3b82c4", "trained": "#ffe2c2", "trained_line": "#d97706",
    "idle": "#fff6ec", "idle_line": "#eac9a3", "plain": "#ffffff",
    "wrong": "#c62828", "noise": "#c4cad1", "series": ("#0072b2", "#d55e00", "#009e73"),
}  # fmt: skip
DARK = {
    "ink": "#f0f6fc", "faint": "#9198a1", "line": "#6e7681", "group": "#151b23",
    "frozen": "#12304f", "frozen_line": "#58a6ff", "trained": "#4a2d0b", "trained_line": "#f0a04b",
    "idle": "#241a10", "idle_line": "#5e4526", "plain": "#0d1117",
    "wrong": "#ff7b72", "noise": "#4a525c", "series": ("#4aa8e0", "#f0883e", "#2fc08f"),
}  # fmt: skip
THEMES = {"light": LIGHT, "dark": DARK}


def matplotlib_style(theme: dict) -> dict:
    """Return Matplotlib's settings for figures without a background."""
    inks = (
        "text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color",
    )  # fmt: skip
    return dict.fromkeys(inks, theme["ink"]) | {
        "font.family": "DejaVu Sans", "font.size": 8.5, "axes.spines.top": False,
        "axes.spines.right": False, "savefig.transparent": True, "svg.hashsalt": "espnet_smop",
    }  # fmt: skip
