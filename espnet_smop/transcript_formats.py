"""Transcript formats: lines of text, JSON, and SRT and WebVTT subtitles.

Each format is a function of the file's path, its segments and the list of its warnings, which is
complete once the segments are consumed. It yields parts of the transcript as soon as they are
known, each without its final line break.
"""

import dataclasses
import html
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from espnet_smop.inference import Segment


def clock(seconds: float) -> str:
    """Return a time as ``h:mm:ss.cc``."""
    hundredths = round(seconds * 100)
    minutes, hundredths = divmod(hundredths, 6000)
    return f"{minutes // 60}:{minutes % 60:02d}:{hundredths // 100:02d}.{hundredths % 100:02d}"


def as_text(segment: Segment) -> str:
    """Return a segment as a line with its times."""
    return f"[{clock(segment.start)} - {clock(segment.end)}] {segment.text}"


def text_lines(path: str, segments: Iterable[Segment], warnings: list[str]) -> Iterator[str]:
    """Yield a line for each segment."""
    return map(as_text, segments)


def json_line(path: str, segments: Iterable[Segment], warnings: list[str]) -> Iterator[str]:
    """Yield a single line of JSON."""
    found = list(segments)
    content: dict[str, Any] = {
        "file": path,
        "text": " ".join(s.text for s in found if s.text),
        "warnings": warnings,
        "segments": [dataclasses.asdict(s) for s in found],
    }
    yield json.dumps(content, ensure_ascii=False)


def srt_cues(path: str, segments: Iterable[Segment], warnings: list[str]) -> Iterator[str]:
    """Yield the cues of an SRT file, one per segment; segments without words are skipped."""
    spoken = (segment for segment in segments if segment.text.split())
    for number, segment in enumerate(spoken, start=1):
        yield f"{number}\n{_times(segment, ',')}\n{_one_line(segment.text)}\n"


def vtt_cues(path: str, segments: Iterable[Segment], warnings: list[str]) -> Iterator[str]:
    """Yield the header and the cues of a WebVTT file; segments without words are skipped."""
    yield "WEBVTT\n"
    for segment in segments:
        if segment.text.split():
            # Markup begins with < and &; --> would be a line of times.
            text = html.escape(_one_line(segment.text), quote=False)
            yield f"{_times(segment, '.')}\n{text}\n"


Format = Callable[[str, Iterable[Segment], list[str]], Iterator[str]]
FORMATS: dict[str, Format] = {
    "txt": text_lines, "json": json_line, "srt": srt_cues, "vtt": vtt_cues,
}  # fmt: skip
"""Name, also the transcript's file suffix → format."""
SUBTITLES = ("srt", "vtt")
"""Formats that video players read."""


def _times(segment: Segment, mark: str) -> str:
    return f"{_subtitle_time(segment.start, mark)} --> {_subtitle_time(segment.end, mark)}"


def _subtitle_time(seconds: float, mark: str) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, whole = divmod(whole, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{whole:02d}{mark}{thousandths:03d}"


def _one_line(text: str) -> str:
    # An empty line would end the cue.
    return " ".join(text.split())
