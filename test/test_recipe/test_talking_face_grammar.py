import itertools
from functools import cache

import numpy as np
import pytest

from talking_face import grammar
from talking_face.difficulty import Difficulty
from talking_face.lips import visemes
from talking_face.speech import Voice, synthesise

VOICE = Voice(name="en-us+m1", rate=175, pitch=50, range=50)


@cache
def phones(word: str) -> tuple[str, ...]:
    return tuple(phone.label for phone in synthesise(word, VOICE).phones)


def look(word: str) -> tuple[str, ...]:
    return tuple(name for phone in phones(word) for name in visemes(phone, Difficulty()))


@pytest.mark.parametrize("pretraining", [False, True])
def test_sentences_are_different_and_of_the_vocabulary(pretraining):
    texts = grammar.sentences(np.random.default_rng(0), 500, pretraining=pretraining)
    assert all(grammar.is_for_pretraining(text) == pretraining for text in texts)
    assert len(set(texts)) == 500
    words = {word for text in texts for word in text.split()}
    assert words == set(grammar.vocabulary())
    assert 60 <= len(words) <= 120
    assert all(not {"and"} & set(t.split()) or t.split()[0] != t.split()[2] for t in texts)


def test_entropy_is_what_the_drawn_words_show():
    # The nouns' slot, the largest: their frequencies must be as uniform as claimed.
    texts = grammar.sentences(np.random.default_rng(1), 4000, pretraining=False)
    nouns = set(grammar.SLOTS["THING"])
    drawn = [word for text in texts for word in text.split() if word in nouns]
    share = np.unique(drawn, return_counts=True)[1] / len(drawn)
    assert -(share * np.log(share)).sum() == pytest.approx(np.log(len(nouns)), abs=0.02)
    assert grammar.entropy() > 1.5  # nats per word: nothing to be guessed well


def test_some_words_of_a_slot_look_alike_but_none_sound_alike():
    errors = words = 0.0
    for template in grammar.TEMPLATES:
        for token in template.split():
            choices = grammar.SLOTS.get(token, (token,))
            assert len({phones(word) for word in choices}) == len(choices)
            errors += 1 - len({look(word) for word in choices}) / len(choices)
            words += 1
    # What even a perfect lip reader gets wrong.
    assert 0.08 < errors / words < 0.2


@pytest.mark.parametrize("pair", [("pat", "matt"), ("met", "bet"), ("bears", "pears")])
def test_bilabials_look_alike(pair):
    assert look(pair[0]) == look(pair[1])


@pytest.mark.parametrize("group", [("fins", "tins", "pins"), ("pans", "vans", "cans")])
def test_words_that_sound_alike_look_different(group):
    for one, other in itertools.combinations(group, 2):
        assert look(one) != look(other)
        assert phones(one)[1:] == phones(other)[1:]
