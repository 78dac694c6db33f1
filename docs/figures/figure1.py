"""Draw the paper's Figure 1 with the file of each part, light and dark.

python docs/figures/figure1.py
"""

import math
from html import escape
from pathlib import Path

from themes import THEMES

WIDTH, HEIGHT = 880, 290
ROWS = {"audio": 96, "video": 190}
"""Modality → middle of its row."""


class Drawing:
    """Elements of an SVG in the colours of one theme; coordinates are in pixels."""

    def __init__(self, theme: dict):
        self.theme = theme
        self.elements: list[str] = []

    def text(
        self, x: float, y: float, words: str, style: str = "label", anchor: str = "middle"
    ) -> None:
        """Write words, whose baseline is at ``y``."""
        self.elements.append(
            f'<text x="{x:g}" y="{y:g}" class="{style}" text-anchor="{anchor}">'
            f"{escape(words)}</text>"
        )

    def box(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        """Draw a box of a kind that the theme has a colour for."""
        border = self.theme.get(f"{kind}_line", self.theme["line"])
        self.elements.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" '
            f'fill="{self.theme[kind]}" stroke="{border}"/>'
        )

    def part(self, x: float, middle: float, width: float, name: str, file: str, kind: str) -> None:
        """Draw a part of the model with its file."""
        self.box(x, middle - 25, width, 50, kind)
        self.text(x + width / 2, middle - 3, name)
        self.text(x + width / 2, middle + 15, file, "file")

    def arrow(self, x1: float, y1: float, x2: float, y2: float) -> None:
        """Draw an arrow."""
        self.elements.append(
            f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="{self.theme["ink"]}" '
            'marker-end="url(#tip)"/>'
        )

    def curve(self, path: str) -> None:
        """Draw an open or closed line."""
        self.elements.append(f'<path d="{path}" fill="none" stroke="{self.theme["ink"]}"/>')

    def svg(self) -> str:
        """Return the file."""
        ink, faint = self.theme["ink"], self.theme["faint"]
        sans = "-apple-system,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif"
        mono = "ui-monospace,'DejaVu Sans Mono',Menlo,monospace"
        elements = "\n".join(self.elements)
        return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"
 width="{WIDTH}" height="{HEIGHT}" role="img">
<title>Frozen encoders, a sparse mixture of projectors, and an LLM with LoRA</title>
<style>
.label{{font:13px {sans};fill:{ink}}}.small{{font:12px {sans};fill:{faint}}}
.file{{font:11px {mono};fill:{faint}}}.folder{{font:bold 12px {mono};fill:{ink}}}
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"
 orient="auto"><path d="M0 0L8 4L0 8z" fill="{ink}"/></marker></defs>
{elements}
</svg>
"""


def inputs(drawing: Drawing) -> None:
    """Draw a waveform and lips."""
    y = ROWS["audio"]
    heights = [math.sin(k / 3) ** 2 * (10 + 8 * math.sin(k * 1.7)) for k in range(29)]
    bars = (f"M{8 + 2.6 * k:.1f} {y - h:.1f}v{2 * h:.1f}" for k, h in enumerate(heights))
    drawing.curve("".join(bars))
    drawing.text(46, y + 38, "speech, 16 kHz", "small")
    y = ROWS["video"]
    drawing.curve(
        f"M14 {y}Q32 {y - 18} 40 {y - 13}Q46 {y - 9} 52 {y - 13}Q60 {y - 18} 78 {y}"
        f"Q46 {y + 32} 14 {y}zM14 {y}Q46 {y - 9} 78 {y}Q46 {y + 15} 14 {y}z"
    )
    drawing.text(46, y + 38, "lips, 25 fps", "small")


def encoders(drawing: Drawing) -> None:
    """Draw the frozen encoders."""
    drawing.box(104, 38, 124, 210, "group")
    drawing.text(166, 58, "frontend/", "folder")
    for modality, name, file in (
        ("audio", "Whisper", "whisper.py"), ("video", "AV-HuBERT", "avhubert.py"),
    ):  # fmt: skip
        drawing.part(114, ROWS[modality], 104, name, file, "frozen")
        drawing.arrow(88, ROWS[modality], 113, ROWS[modality])
        drawing.arrow(218, ROWS[modality], 255, ROWS[modality])


def projector(drawing: Drawing) -> None:
    """Draw a router and a pool of experts for each modality: the routing DEDR."""
    drawing.box(246, 38, 382, 210, "group")
    drawing.text(437, 58, "projector/smop.py", "folder")
    for modality, chosen in (("audio", (0, 2)), ("video", (1, 2))):
        y = ROWS[modality]
        drawing.part(256, y, 104, "downsample", "downsample.py", "plain")
        drawing.part(382, y, 82, "router", "router.py", "trained")
        drawing.arrow(360, y, 381, y)
        for k in range(3):
            x, kind = 496 + 41 * k, "trained" if k in chosen else "idle"
            drawing.box(x, y - 25, 36, 28, kind)
            drawing.text(x + 18, y - 7, f"E{k}", "label" if k in chosen else "small")
        drawing.text(555, y + 18, "experts.py", "file")
        drawing.arrow(464, y - 11, 494, y - 11)
        drawing.arrow(619, y - 11, 655, y - 11)
    drawing.text(502, 147, "each token takes its top 2 experts", "small")


def decoder(drawing: Drawing) -> None:
    """Draw the LLM, its prompt and the search."""
    drawing.box(646, 38, 230, 210, "group")
    drawing.text(761, 58, "decoder/", "folder")
    drawing.box(656, 71, 104, 119, "frozen")
    drawing.text(708, 92, "Llama")
    drawing.text(708, 108, "llm.py", "file")
    drawing.box(668, 120, 80, 38, "trained")
    drawing.text(708, 144, "LoRA")
    drawing.box(656, 202, 104, 40, "plain")
    drawing.text(708, 218, "prompt")
    drawing.text(708, 234, "prompt.py", "file")
    drawing.arrow(708, 202, 708, 191)
    drawing.part(782, ROWS["audio"], 86, "beam search", "search.py", "plain")
    drawing.arrow(760, ROWS["audio"], 781, ROWS["audio"])
    drawing.arrow(825, 121, 825, 152)
    for k, line in enumerate(("“ten red coats", "sat near", "the farm”")):
        drawing.text(825, 172 + 16 * k, line)


def model(drawing: Drawing) -> None:
    """Name the steps of ``model.py`` below the parts, and explain the colours above them."""
    for left, right, step in (
        (104, 228, "encode"), (246, 628, "project"), (646, 876, "decode → loss"),
    ):  # fmt: skip
        drawing.curve(f"M{left} 256v5H{right}v-5")
        drawing.text((left + right) / 2, 279, step)
    drawing.text(46, 279, "model.py", "folder")
    for x, kind in ((700, "frozen"), (790, "trained")):
        drawing.box(x, 10, 14, 14, kind)
        drawing.text(x + 21, 22, kind, "small", "start")
    drawing.text(104, 22, "espnet_smop/", "folder", "start")


def draw(theme: dict) -> str:
    """Return the figure in the colours of a theme."""
    drawing = Drawing(theme)
    for part in (decoder, projector, encoders, inputs, model):
        part(drawing)
    return drawing.svg()


def main() -> None:
    """Write the figure beside this script."""
    for name, theme in THEMES.items():
        Path(__file__).with_name(f"figure1_{name}.svg").write_text(draw(theme), encoding="utf-8")


if __name__ == "__main__":
    main()
