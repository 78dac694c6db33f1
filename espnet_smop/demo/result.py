"""A clip's recognition as self-contained HTML, with all its pictures and sound."""

import base64
import io

import jinja2
import numpy as np

from espnet_smop.demo.playback import webm
from espnet_smop.demo.recognition import ClipRecogniser, Inputs, RecognisedPiece, Recognition
from espnet_smop.modality import MODALITIES
from espnet_smop.results import figures
from espnet_smop.results.expert_usage import Route, Strip, Usage

TITLES: dict[Inputs, str] = {
    ("audio", "video"): "Sound and lips",
    ("audio",): "Sound alone",
    ("video",): "Lips alone",
}
_TRAINED_TOGETHER = (
    "This model was trained on sound and lips together. With one of them alone it does worse than "
    "a model trained for that."
)
_DOTS_PER_INCH = 150

_template = jinja2.Environment(
    loader=jinja2.PackageLoader("espnet_smop.demo", "."), autoescape=True
).get_template("result.html.jinja")


def as_html(recogniser: ClipRecogniser, found: Recognition) -> str:
    """Return the transcripts, the model's input, and the experts of its tokens."""
    return _template.render(
        warnings=found.warnings,
        transcripts=[(TITLES[inputs], _lines(found, inputs)) for inputs in recogniser.choices],
        note="" if recogniser.trained_alone else _TRAINED_TOGETHER,
        playback=_base64(webm(_joined(found, "speech"), _joined(found, "video"))),
        strips=[(_strip(p), _caption(p.routes)) for p in found.pieces if p.routes],
    )


def _lines(found: Recognition, inputs: Inputs) -> list[tuple[str, str, str]]:
    segments = [p.transcripts[inputs] for p in found.pieces if inputs in p.transcripts]
    return [(f"{s.start:.1f}", f"{s.end:.1f} s", s.text) for s in segments]


def _joined(found: Recognition, name: str) -> np.ndarray | None:
    """Join an input of all pieces, silent or black where a piece lacks it; None where all do."""
    given = [getattr(p.piece, name) for p in found.pieces]
    like = next((part for part in given if part is not None), None)
    if like is None:
        return None
    rate = next(m.rate for m in MODALITIES.values() if m.data_name == name)
    for i, (part, recognised) in enumerate(zip(given, found.pieces, strict=True)):
        if part is None:
            count = round((recognised.piece.end - recognised.piece.start) * rate)
            given[i] = np.zeros((count, *like.shape[1:]), like.dtype)
    return np.concatenate(given)


def _strip(piece: RecognisedPiece) -> str:
    strip = Strip("", None, piece.piece.speech, piece.piece.video, piece.routes)
    heard = next(iter(piece.transcripts.values())).text
    file = io.BytesIO()
    figures.strip(strip, heard).savefig(file, format="png", dpi=_DOTS_PER_INCH)
    return _base64(file.getvalue())


def _caption(routes: list[Route]) -> str:
    """Describe each expert's share of the tokens' first choices."""
    parts = []
    for route in routes:
        usage = Usage.of(route.router, route.modality, route.choices, route.probs.shape[1])
        shares = ", ".join(f"{e}: {100 * s:.0f} %" for e, s in enumerate(usage.shares[0]))
        parts.append(f"{route.modality}, {usage.tokens} tokens – {shares}")
    return "First choice by expert: " + "; ".join(parts)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
