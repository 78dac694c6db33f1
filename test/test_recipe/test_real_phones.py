"""Phone times of eSpeak NG's voices, for the report of the recipe of real speech."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from espnet_smop.corpus.datadir import write_data_dir
from espnet_smop.results.phones import CLASSES, phone_class, read_phones
from talking_face.difficulty import Difficulty
from talking_face.speakers import speaker
from talking_face.speech import SAMPLE_RATE, speak, speak_phones, synthesise

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / "egs2/real_speech/avsr_smop1/local"
VOICE = speaker(50, 0, Difficulty()).voice  # s51, of the test set
TEXTS = {
    "s51-0": ("s51", "return the client address of the file in which judges were thin"),
    "s52-1": ("s52", "seven sad zebras see six shadows"),
    "allison-2": ("allison", "please call me"),
}


def test_ipa_has_the_times_of_the_mnemonics():
    text = "five big boats lay near the pier"
    said = synthesise(text, VOICE)
    samples, phones = speak_phones(text, VOICE)
    np.testing.assert_array_equal(samples, said.samples)
    np.testing.assert_array_equal(samples, speak(text, VOICE))
    assert [(p.start, p.end) for p in phones] == [(p.start, p.end) for p in said.phones]
    assert [p.label for p in said.phones][:4] == ["f", "aI", "v", "b"]
    assert [p.label for p in phones][:4] == ["f", "aɪ", "v", "b"]


@pytest.fixture
def data_dir(tmp_path):
    lengths = {
        key: len(speak(text, speaker(int(name[1:]) - 1, 0, Difficulty()).voice))
        for key, (name, text) in TEXTS.items() if name != "allison"
    }  # fmt: skip
    tables = {
        "wav.scp": dict.fromkeys(TEXTS, "x.flac"),
        "text": {key: text for key, (_, text) in TEXTS.items()},
        "utt2spk": {key: name for key, (name, _) in TEXTS.items()},
        "utt2num_samples": {**lengths, "allison-2": 1},
    }
    write_data_dir(tmp_path / "data", tables)
    return tmp_path / "data"


def write_phones(data_dir):
    return subprocess.run(
        [sys.executable, str(LOCAL / "phones.py"), str(data_dir), "--nj", "1"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/egs2/synthesis"},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def test_times_are_those_of_the_sound(data_dir):
    done = write_phones(data_dir)
    assert done.returncode == 0, done.stderr
    assert "phones of 2 utterances" in done.stdout
    alignments = read_phones(data_dir / "phones.ctm")
    assert alignments.keys() == {"s51-0", "s52-1"}
    for key, alignment in alignments.items():
        name, text = TEXTS[key]
        samples = speak(text, speaker(int(name[1:]) - 1, 0, Difficulty()).voice)
        starts, ends = np.array(alignment.starts), np.array(alignment.ends)
        assert (ends[:-1] <= starts[1:] + 2e-4).all()
        assert starts[0] >= 0 and 0.9 * len(samples) < ends[-1] * SAMPLE_RATE <= len(samples) + 2
        # Each 10 ms: vowels are loud, fricatives hiss (most of their differences are large).
        power, hiss = [], []
        for frame in samples[: len(samples) // 160 * 160].reshape(-1, 160):
            power.append(float((frame**2).mean()))
            hiss.append(float((np.diff(frame) ** 2).mean() / max(power[-1], 1e-9)))
        power, hiss = np.array(power), np.array(hiss)
        of = np.array([CLASSES[c] for c in alignment.of_tokens(len(power), 0.01)])
        assert power[of == "vowel"].mean() > 3 * power[of == "fricative"].mean()
        assert power[of == "vowel"].mean() > 100 * power[of == "silence"].mean()
        assert np.median(hiss[of == "fricative"]) > 3 * np.median(hiss[of == "vowel"])


def test_every_phone_of_the_voices_has_a_class():
    text = "choose joy or measure the higher power of a rarely used bottle there near poor things"
    for index in range(60):
        _, phones = speak_phones(text, speaker(index, 0, Difficulty()).voice)
        assert {phone_class(p.label) for p in phones} == set(CLASSES) - {"silence", "noise"}


def test_sound_of_another_synthesiser_is_refused(data_dir):
    path = data_dir / "utt2num_samples"
    path.write_text(path.read_text().replace("s52-1 ", "s52-1 1"))
    done = write_phones(data_dir)
    assert done.returncode == 1
    assert "phones: s52-1 has 1" in done.stderr and "eSpeak NG speaks" in done.stderr
    assert not (data_dir / "phones.ctm").exists()
