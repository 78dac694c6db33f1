from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_smop.train.noise import NoiseAdder, load, mix

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "preprocess.npz")


@pytest.mark.parametrize("snr", [5, 0])
def test_mixing_equals_the_public_code(snr):
    speech = GOLDEN["audio_float"][:, 0]
    start = int(GOLDEN["noise_start_idx"])
    # The reference reads 16-bit integers; the gain makes the noise's scale irrelevant
    noise = GOLDEN["noise_int16"].astype(np.float32)[start : start + len(speech)]
    assert np.allclose(mix(speech, noise, snr), GOLDEN[f"audio_mixed_snr{snr}"][:, 0], atol=1e-4)


@pytest.mark.parametrize("snr", [-5.0, 0.0, 2.5, 20.0])
def test_energies_have_the_ratio_asked_for(snr):
    rng = np.random.default_rng(0)
    speech, noise = rng.normal(size=(2, 16000))
    added = mix(speech, noise, snr) - speech
    assert 10 * np.log10(np.sum(speech**2) / np.sum(added**2)) == pytest.approx(snr, abs=1e-6)


def test_silence_stays_as_it_is():
    assert np.array_equal(mix(np.zeros(10), np.ones(10), 0), np.zeros(10))
    assert np.array_equal(mix(np.ones(10), np.zeros(10), 0), np.ones(10))


@pytest.fixture
def noise_file(tmp_path):
    path = tmp_path / "babble noise.wav"
    soundfile.write(path, np.random.default_rng(0).normal(size=4000) * 0.1, 16000)
    return str(path)


def test_deterministic_noise_depends_on_the_utterance_and_nothing_else(noise_file):
    speech = np.random.default_rng(1).normal(size=10000).astype(np.float32)
    adder = NoiseAdder(noise_file, snr=0, deterministic=True)
    first = adder("utt1", speech)
    np.random.seed(5)
    assert np.array_equal(
        NoiseAdder(noise_file, snr=[0.0], deterministic=True)("utt1", speech), first
    )
    assert not np.array_equal(adder("utt2", speech), first)
    other_seed = NoiseAdder(noise_file, snr=0, deterministic=True, seed=1)
    assert not np.array_equal(other_seed("utt1", speech), first)


def test_zero_means_zero_decibel(noise_file):
    speech = np.random.default_rng(1).normal(size=10000)
    noisy = NoiseAdder(noise_file, snr=0, deterministic=True)("a", speech)
    assert np.sum((noisy - speech) ** 2) == pytest.approx(np.sum(speech**2))


def test_none_adds_nothing(noise_file):
    speech = np.ones(100)
    assert NoiseAdder(noise_file, snr=None)("a", speech) is speech
    assert NoiseAdder(noise_file, snr=0, probability=0)("a", speech) is speech


def test_training_noise_varies_and_uses_every_ratio(noise_file):
    np.random.seed(0)
    speech = np.random.default_rng(1).normal(size=2000)
    adder = NoiseAdder(noise_file, snr=[-5, 10])
    ratios = {
        round(10 * np.log10(np.sum(speech**2) / np.sum((adder("a", speech) - speech) ** 2)))
        for _ in range(50)
    }
    assert ratios == {-5, 10}


def test_bad_noise_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="none.wav does not exist"):
        NoiseAdder(str(tmp_path / "none.wav"), snr=0)("a", np.ones(10))
    path = tmp_path / "empty.wav"
    soundfile.write(path, np.ones(0), 16000)
    with pytest.raises(ValueError, match="empty.wav has no samples"):
        NoiseAdder(str(path), snr=0)("a", np.ones(10))
    path = tmp_path / "noise.txt"
    path.write_text("hum")
    with pytest.raises(ValueError, match="noise.txt: .*; convert it to WAV or FLAC"):
        NoiseAdder(str(path), snr=0)("a", np.ones(10))


def test_noise_at_another_rate_is_resampled(tmp_path):
    path = tmp_path / "tone.wav"
    seconds = np.arange(3 * 19980) / 19980  # NOISEX's rate
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 1000 * seconds), 19980)
    tone = load(str(path))
    assert len(tone) == 3 * 16000
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(len(tone)) / 16000)
    np.testing.assert_allclose(tone[800:-800], expected[800:-800], atol=2e-3)
