"""Normalisation of transcripts, as the literature scores LRS3.

LRS3 is written in upper case without punctuation except apostrophes. Published results use lower
case (AV-HuBERT) and remove the braces around uncertain words but keep the words (auto_avsr). Here:

- lower case; runs of blanks become one space;
- ``{NS}``, ``{LG}`` (noise, laughter) and ``<…>`` are removed;
- for other ``{…}`` only the braces are removed;
- numbers, apostrophes and all other characters are kept.
"""

import re

_NOISE = re.compile(r"\{\s*(?:ns|lg)\s*\}|<[^<>]*>", re.IGNORECASE)


def normalise(text: str) -> str:
    """Normalise a transcript for training and scoring."""
    text = _NOISE.sub(" ", text)
    return " ".join(text.replace("{", " ").replace("}", " ").lower().split())
