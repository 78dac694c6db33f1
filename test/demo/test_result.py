"""The page's HTML: complete, with all it needs inside, and safe whatever is recognised."""

import base64
import dataclasses
import html
import re
from html.parser import HTMLParser

import pytest
from markupsafe import escape

from espnet_smop.demo.result import as_html


class Page(HTMLParser):
    """Keeps a page's tags and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += [data.strip()] if data.strip() else []

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def found(recogniser, clips):
    return recogniser(clips / "a.webm", 0)


def test_all_is_shown_and_nothing_is_fetched(recogniser, found):
    page = Page(as_html(recogniser, found))
    assert [t for t in page.text if t in ("Sound and lips", "Sound alone", "Lips alone")] == [
        "Sound and lips", "Sound alone", "Lips alone",
    ]  # fmt: skip
    for segment in found.pieces[0].transcripts.values():
        assert segment.text.strip() in page.text
    assert page.text.count("0.0 – 1.0 s") == 3
    sources = [a["src"] for tag in ("video", "img") for a in page.all(tag)]
    kinds = {}
    for source in sources:
        kind, data = re.fullmatch(r"data:(.*?);base64,(.*)", source).groups()
        kinds[kind] = base64.b64decode(data, validate=True)[:4]
    assert kinds == {"video/webm": b"\x1aE\xdf\xa3", "image/png": b"\x89PNG"}
    assert "was trained on sound and lips together" in " ".join(page.text)


def test_captions_count_first_choices(recogniser, found):
    [image] = Page(as_html(recogniser, found)).all("img")
    for route in found.pieces[0].routes:
        share = 100 * (route.choices[:, 0] == 1).mean()
        assert re.search(
            rf"{route.modality}, {len(route.choices)} tokens – 0: \d+ %, 1: {share:.0f} %",
            image["alt"],
        )


def test_texts_are_escaped(recogniser, found):
    bad = "<script>alert(1)</script>"
    [piece] = found.pieces
    texts = {i: dataclasses.replace(s, text=bad) for i, s in piece.transcripts.items()}
    changed = dataclasses.replace(
        found, pieces=[dataclasses.replace(piece, transcripts=texts)], warnings=[bad]
    )
    page = Page(as_html(recogniser, changed))
    assert page.all("script") == [] and page.text.count(bad) == 4
    assert str(escape(bad)) == html.escape(bad)


def test_pieces_without_a_face_or_routers(recogniser, found):
    [piece] = found.pieces
    blind = dataclasses.replace(
        piece,
        piece=dataclasses.replace(piece.piece, start=1.0, end=2.0, video=None),
        transcripts={("audio",): piece.transcripts[("audio",)]},
        routes=[],
    )
    page = Page(as_html(recogniser, dataclasses.replace(found, pieces=[piece, blind])))
    assert len(page.all("img")) == 1 and len(page.all("video")) == 1
    page = Page(as_html(recogniser, dataclasses.replace(found, pieces=[blind])))
    assert page.all("img") == [] and page.text.count("not in this clip") == 2
