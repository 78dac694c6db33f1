"""Sentences whose words only sound, or only lips, can tell apart.

A slot holds words that look alike but sound different (*pat, matt*; *pans, bans*: /p b m/ all
close the lips) next to words that look different but sound alike in noise (*fins, tins*). Choices
are uniform and independent, so that a language model learns the slots and no more.
"""

import math
from zlib import crc32

import numpy as np

_WORDS = {
    "NAME": "pat matt ben ken tim kim faye may sue lou",
    "VERB": "sold told bought caught fed led met bet hid bit",
    "NUMBER": "two three four five six seven nine ten",
    "SIZE": "fat thin big wet red bad mad sad nice wise old cold",
    "THING": (
        "mice bees peas keys pans vans fans cans pins bins fins tins"
        " bats mats cats hats bears pears chairs boats goats coats"
    ),
    "MOVE": "ran sat lay hopped walked fell",
    "WHERE": "by near behind",
    "PLACE": "park pier bay sea pool hall wall mall lane farm",
    "WHEN": "now today soon again",
}
SLOTS: dict[str, tuple[str, ...]] = {name: tuple(w.split()) for name, w in _WORDS.items()}

TEMPLATES: tuple[str, ...] = (
    "NAME VERB NUMBER SIZE THING",
    "NAME VERB NUMBER THING WHEN",
    "the SIZE THING MOVE WHERE the PLACE",
    "NAME and NAME VERB the SIZE THING",
    "NUMBER SIZE THING MOVE WHERE the PLACE",
)


def vocabulary() -> list[str]:
    """Return all words that sentences can hold, sorted."""
    words = {word for slot in SLOTS.values() for word in slot}
    words |= {word for template in TEMPLATES for word in template.split() if word not in SLOTS}
    return sorted(words)


def entropy() -> float:
    """Return the sentences' nats per word, counting the end of a sentence as a word."""
    nats = math.log(len(TEMPLATES))
    words = 0.0
    for template in TEMPLATES:
        tokens = template.split()
        nats += sum(math.log(len(SLOTS[t])) for t in tokens if t in SLOTS) / len(TEMPLATES)
        words += (len(tokens) + 1) / len(TEMPLATES)
    return nats / words


def sentence(rng: np.random.Generator) -> str:
    """Draw one sentence: a template, and a word for each of its slots."""
    tokens = TEMPLATES[rng.integers(len(TEMPLATES))].split()
    return " ".join(str(rng.choice(SLOTS[t])) if t in SLOTS else t for t in tokens)


def is_for_pretraining(text: str) -> bool:
    """Return whether a sentence is one of the half reserved for base models, for every seed."""
    return crc32(text.encode()) % 2 == 1


def sentences(rng: np.random.Generator, count: int, *, pretraining: bool) -> list[str]:
    """Draw ``count`` different sentences, none with the same name twice.

    Args:
        rng: generator to draw from.
        count: how many.
        pretraining: draw from the half that is reserved for base models, or from the other.
    """
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        text = sentence(rng)
        names = [word for word in text.split() if word in SLOTS["NAME"]]
        if len(set(names)) == len(names) and is_for_pretraining(text) == pretraining:
            drawn[text] = None
    return list(drawn)
