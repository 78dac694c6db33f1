import itertools

import numpy as np
import pytest

from talking_face import grammar
from talking_face.difficulty import Difficulty
from talking_face.lips import visemes
from talking_face.sound import record
from talking_face.speakers import Room, speaker
from talking_face.speech import SAMPLE_RATE, Voice, synthesise

VOICE = Voice(name="en-us+f2", rate=180, pitch=50, range=50)


def test_speech_does_not_depend_on_what_was_said_before():
    first = synthesise("matt sold nine thin mice", VOICE)
    synthesise("the old bears ran", Voice(name="en+m3", rate=200, pitch=30, range=60))
    again = synthesise("matt sold nine thin mice", VOICE)
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.words == again.words
    assert first.phones == again.phones


def test_words_and_phones_follow_each_other_within_the_sound():
    text = "five big boats lay near the pier"
    said = synthesise(text, VOICE)
    assert [word.label for word in said.words] == text.split()
    for segments in (said.words, said.phones):
        assert all(s.start < s.end for s in segments)
        assert all(a.end <= b.start + 1e-9 for a, b in itertools.pairwise(segments))
    assert 1.2 < said.words[-1].end <= len(said.samples) / SAMPLE_RATE
    # Each word owns phones, and they lie within it.
    for word in said.words:
        own = [p for p in said.phones if word.start <= p.start < word.end]
        assert own
        assert own[-1].end == pytest.approx(word.end)


def test_sound_is_where_the_phones_are():
    said = synthesise("sue led seven sad bees", VOICE)
    power = said.samples**2
    voiced = np.zeros(len(power), bool)
    for phone in said.phones:
        if phone.label[0] in "aeiouAEIOU3@":
            voiced[round(phone.start * SAMPLE_RATE) : round(phone.end * SAMPLE_RATE)] = True
    assert power[voiced].mean() > 3 * power[~voiced].mean()


def test_every_word_is_read_and_shown_by_every_voice():
    difficulty = Difficulty()
    texts = grammar.sentences(np.random.default_rng(0), 108, pretraining=False)
    for i, text in enumerate(texts):
        said = synthesise(text, speaker(i % 36, 0, difficulty).voice)
        assert [word.label for word in said.words] == text.split()
        assert all(visemes(phone.label, difficulty) for phone in said.phones)


def test_errors_name_the_cause():
    with pytest.raises(ValueError, match="no voice 'xx'"):
        synthesise("now", Voice(name="xx", rate=180, pitch=50, range=50))
    with pytest.raises(ValueError, match="'in the' as 1 words"):
        synthesise("in the", VOICE)  # read as one by eSpeak; the grammar has no such pair


def test_recording_has_the_noise_asked_for():
    rng = np.random.default_rng(0)
    clean = np.sin(np.arange(3 * SAMPLE_RATE) * 0.3).astype(np.float32)
    quiet = Difficulty(snr=(20, 20), room_level=0.0, tilt=0.0)
    heard = record(clean, Room(time=0.1, tilt=0.0), quiet, rng)
    gain = (heard @ clean) / (clean @ clean)
    noise = heard - gain * clean
    snr = 10 * np.log10(((gain * clean) ** 2).mean() / (noise**2).mean())
    assert snr == pytest.approx(20, abs=0.2)
