import numpy as np
import pytest
import soundfile

from espnet_smop.corpus.babble import mix_babble
from espnet_smop.corpus.datadir import DataDirError


@pytest.fixture
def tones(tmp_path):
    """Make eight utterances, each a tone of its own, of very different loudness."""
    audio = {}
    for i in range(8):
        time = np.arange(8000 + 800 * i) / 16000
        path = tmp_path / f"{i}.flac"
        tone = 0.5 / 2**i * np.sin(2 * np.pi * (300 + 200 * i) * time)
        soundfile.write(path, tone, 16000, subtype="PCM_24")
        audio[f"u{i}"] = str(path)
    return audio


def test_everyone_is_heard_equally(tones):
    speakers = {u: u for u in tones}
    noise = mix_babble(tones, speakers, num_utts=8, seconds=20, seed=3)
    assert noise.dtype == np.float32 and len(noise) == 320000
    assert abs(np.abs(noise).max() - 0.9) < 1e-3
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    bands = [spectrum[20 * (250 + 200 * i) : 20 * (350 + 200 * i)].sum() for i in range(8)]
    # Longer ones speak longer in a stream; loudness was a factor of 2**14.
    assert max(bands) / min(bands) < 4


def test_no_silence_no_repetition(tmp_path):
    random = np.random.default_rng(0)
    audio = {}
    for i in range(12):
        audio[f"u{i}"] = str(tmp_path / f"{i}.flac")
        soundfile.write(audio[f"u{i}"], random.normal(0, 0.1, 8000 + 997 * i), 16000)
    noise = mix_babble(audio, dict.fromkeys(audio, "s"), num_utts=6, seconds=10)
    power = (noise.reshape(-1, 800) ** 2).mean(axis=1)
    assert power.min() > 0.5 * power.mean()
    spectrum = np.abs(np.fft.rfft(noise, 2 * len(noise))) ** 2
    correlation = np.fft.irfft(spectrum)[: len(noise)]
    assert correlation[800:].max() < 0.5 * correlation[0]


def test_seed(tones):
    make = dict(num_utts=4, seconds=1)
    one = mix_babble(tones, dict.fromkeys(tones, "s"), seed=1, **make)
    np.testing.assert_array_equal(
        one, mix_babble(dict(reversed(tones.items())), dict.fromkeys(tones, "s"), seed=1, **make)
    )
    assert not np.array_equal(one, mix_babble(tones, dict.fromkeys(tones, "s"), seed=2, **make))


def test_errors(tones, tmp_path):
    with pytest.raises(DataDirError, match="the training set has 8"):
        mix_babble(tones, dict.fromkeys(tones, "s"), num_utts=9)
    soundfile.write(tmp_path / "0.flac", np.zeros(800), 8000)
    with pytest.raises(DataDirError, match="8000 Hz instead of 16000"):
        mix_babble(tones, dict.fromkeys(tones, "s"), num_utts=8)
