"""Transcripts in their formats; subtitles are read by FFmpeg."""

import json

import av
import pytest

from espnet_smop.inference import Segment
from espnet_smop.transcript_formats import FORMATS, as_text, clock

SEGMENTS = [
    Segment(0.0, 2.48, "place blue at f two", -1.0, ("audio", "video")),
    Segment(2.48, 3.0, " ", -9.0, ("audio",)),  # nothing was said
    Segment(59.96, 61.2, "ça vā <b>so</b> & <00:01:00.000> a --> b\n\nand on", -2.0, ("audio",)),
    Segment(36000.04, 36001.0, "1", -3.0, ("video",)),
]


def written(form, segments, path):
    with path.open("w", encoding="utf-8") as file:
        for part in FORMATS[form]("a.mp4", iter(segments), ["no face"]):
            print(part, file=file)
    return path


def cues(path):
    """Return what FFmpeg reads: (start, end) in seconds and the bytes of the text."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.subtitles
        return [
            (float(p.pts * p.time_base), float((p.pts + p.duration) * p.time_base), bytes(p))
            for p in container.demux(stream)
            if p.size
        ]


@pytest.mark.parametrize(("form", "name"), [("srt", "srt"), ("vtt", "webvtt")])
def test_another_reader_finds_times_and_words_of_subtitles(form, name, tmp_path):
    path = written(form, SEGMENTS, tmp_path / f"a.{form}")
    with av.open(str(path)) as container:
        assert container.format.name == name
    found = cues(path)
    spoken = [s for s in SEGMENTS if s.text.strip()]
    assert [cue[:2] for cue in found] == [pytest.approx((s.start, s.end)) for s in spoken]
    texts = [text.decode() for *_, text in found]
    assert texts[0] == "place blue at f two" and texts[2] == "1"
    markup = "ça vā <b>so</b> & <00:01:00.000> a --> b and on"
    escaped = "ça vā &lt;b&gt;so&lt;/b&gt; &amp; &lt;00:01:00.000&gt; a --&gt; b and on"
    assert texts[1] == (markup if form == "srt" else escaped)


def test_subtitles_of_silence(tmp_path):
    assert written("srt", SEGMENTS[1:2], tmp_path / "a.srt").read_text() == ""
    assert cues(written("vtt", SEGMENTS[1:2], tmp_path / "a.vtt")) == []


def test_lines_and_json(tmp_path):
    lines = written("txt", SEGMENTS[:2], tmp_path / "a.txt").read_text().splitlines()
    assert lines == ["[0:00:00.00 - 0:00:02.48] place blue at f two", as_text(SEGMENTS[1])]
    content = json.loads(written("json", SEGMENTS[:1], tmp_path / "a.json").read_text())
    assert content["file"] == "a.mp4" and content["warnings"] == ["no face"]
    assert content["text"] == SEGMENTS[0].text and content["segments"][0]["end"] == 2.48


@pytest.mark.parametrize("form", ["txt", "srt", "vtt"])
def test_parts_come_as_they_are_recognised(form):
    taken = []
    segments = (taken.append(s) or s for s in SEGMENTS)
    parts = FORMATS[form]("a.mp4", segments, [])
    assert SEGMENTS[0].text in "".join(next(parts) for _ in range(2 if form == "vtt" else 1))
    assert len(taken) == 1


def test_times():
    assert clock(3725.678) == "1:02:05.68" and clock(0) == "0:00:00.00"
    assert clock(59.999) == "0:01:00.00"
    segment = Segment(1.0, 2.5, "hello world", 0.0, ("audio",))
    assert as_text(segment) == "[0:00:01.00 - 0:00:02.50] hello world"
