"""Transcripts as the literature on LRS3 scores them.

LRS3 writes upper case without punctuation, apostrophes kept. Published results lower the case
(AV-HuBERT) and drop the braces of uncertain words while keeping the words (auto_avsr). Here:

- lower case; runs of blanks become one space;
- ``{NS}`` and ``{LG}`` (noise, laughter) are dropped; of other ``{…}`` the words are kept;
- ``<…>`` markings are dropped;
- numbers, apostrophes and all other characters are kept.
"""

import re

_NOISE = re.compile(r"\{\s*(?:ns|lg)\s*\}|<[^<>]*>", re.IGNORECASE)


def normalise(text: str) -> str:
    """Return a transcript in the form in which it is trained and scored."""
    text = _NOISE.sub(" ", text)
    return " ".join(text.replace("{", " ").replace("}", " ").lower().split())
