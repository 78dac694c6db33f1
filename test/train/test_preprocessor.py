from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_smop.train.preprocessor import AVSRPreprocessor, normalise_speech, normalise_video

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "preprocess.npz")


def encode(text: str) -> list[int]:
    return [ord(c) for c in text]


def test_video_equals_the_public_code_at_test_time():
    grey = np.round(GOLDEN["video_uint8"] @ [0.2989, 0.587, 0.114]).astype(np.uint8)
    out = AVSRPreprocessor(False, encode)("a", {"video": grey})["video"]
    assert out.dtype == np.float32
    # Crops are stored as whole grey levels: half a level of 255 is all that may differ
    assert np.abs(out - GOLDEN["video_out"][:, 0]).max() <= 0.5 / 255 / 0.165 + 1e-5


@pytest.mark.parametrize("name", ["audio_clean_out", "audio_out_snr5", "audio_out_snr0"])
def test_speech_normalisation_equals_the_public_code(name):
    source = {
        "audio_clean_out": "audio_float",
        "audio_out_snr5": "audio_mixed_snr5",
        "audio_out_snr0": "audio_mixed_snr0",
    }[name]
    assert np.allclose(normalise_speech(GOLDEN[source][:, 0]), GOLDEN[name][:, 0], atol=1e-4)


def test_text_becomes_ids():
    out = AVSRPreprocessor(True, encode)("a", {"text": "ab"})["text"]
    assert out.dtype == np.int64
    assert out.tolist() == [97, 98]


def test_augmentation_is_for_training_only():
    data = {
        "speech": np.random.default_rng(0).normal(size=32000),
        "video": np.random.default_rng(0).integers(0, 255, (50, 96, 96), dtype=np.uint8),
    }
    evaluate, train = AVSRPreprocessor(False, encode), AVSRPreprocessor(True, encode)
    first, second = evaluate("a", dict(data)), evaluate("a", dict(data))
    assert all(np.array_equal(first[k], second[k]) for k in data)
    assert (first["speech"] != 0).all()
    np.random.seed(0)
    augmented = train("a", dict(data))
    assert augmented["speech"].shape == first["speech"].shape
    assert augmented["video"].shape == first["video"].shape == (50, 88, 88)
    assert (augmented["speech"] == 0).any()
    assert (augmented["video"] == 0).all(axis=(1, 2)).any()


def test_noise_in_training_and_on_request_in_evaluation(tmp_path):
    path = str(tmp_path / "n.wav")
    soundfile.write(path, np.random.default_rng(0).normal(size=4000) * 0.1, 16000)
    speech = np.random.default_rng(1).normal(size=4000)
    conf = {"noise": {"file": path, "snr": 0}, "speech_mask": None}
    clean = AVSRPreprocessor(False, encode, **conf)("a", {"speech": speech})["speech"]
    assert np.allclose(clean, normalise_speech(speech), atol=1e-6)
    for train, flag in ((True, False), (False, True)):
        adder = AVSRPreprocessor(train, encode, noise_in_validation=flag, **conf)
        noisy = [adder("a", {"speech": speech})["speech"] for _ in range(2)]
        assert not np.allclose(noisy[0], clean, atol=1e-2)
        assert np.array_equal(*noisy) != train  # random in training, fixed in evaluation


def test_another_kind_of_noise_is_added_where_the_usual_one_would_be():
    class Preprocessor(AVSRPreprocessor):
        def make_noise(self, conf):
            return lambda uid, speech: speech + conf["offset"] * np.arange(len(speech))

    speech, conf = np.random.default_rng(1).normal(size=400), {"noise": {"offset": 1.0}}
    clean = Preprocessor(False, encode, speech_normalise=False, **conf)("a", {"speech": speech})
    assert np.allclose(clean["speech"], speech)
    for train, flag in ((True, False), (False, True)):
        noisy = Preprocessor(
            train,
            encode,
            noise_in_validation=flag,
            speech_normalise=False,
            speech_mask=None,
            **conf,
        )("a", {"speech": speech})
        assert np.allclose(noisy["speech"], speech + np.arange(400), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("speech", np.zeros(0), "utterance a has no audio samples"),
        ("speech", np.array([0, np.nan]), "utterance a .* not finite"),
        ("video", np.zeros((0, 96, 96), np.uint8), "utterance a has no video frames"),
        ("video", np.zeros((2, 50, 50), np.uint8), "50x50"),
    ],
)
def test_bad_inputs_are_named(name, value, message):
    with pytest.raises(ValueError, match=message):
        AVSRPreprocessor(False, encode)("a", {name: value})


@pytest.mark.parametrize("train", [False, True])
def test_videos_are_cut_to_a_multiple(train):
    preprocess = AVSRPreprocessor(train, video_multiple=3, video_mask=None, flip_probability=0)
    video = np.random.default_rng(0).integers(0, 255, (11, 88, 88), dtype=np.uint8)
    out = preprocess("a", {"video": video, "speech": np.ones(7040)})
    assert len(out["video"]) == 9 and len(out["speech"]) == 7040
    np.testing.assert_array_equal(out["video"], normalise_video(video[:9]))
    with pytest.raises(ValueError, match="utterance a has 2 video frames, fewer than .* 3"):
        preprocess("a", {"video": video[:2]})


@pytest.mark.parametrize("name", ["speech_feats", "video_feats"])
def test_features_are_masked_in_training_only(name):
    feats = np.ones((100, 3), dtype=np.float32)
    mask = {"max_width": 10, "stride": 25}
    evaluate = AVSRPreprocessor(False, encode, feats_mask=mask)
    assert np.array_equal(evaluate("a", {name: feats})[name], feats)
    assert np.array_equal(AVSRPreprocessor(True, encode)("a", {name: feats})[name], feats)
    np.random.seed(0)
    masked = AVSRPreprocessor(True, encode, feats_mask=mask)("a", {name: feats})[name]
    assert masked.shape == feats.shape and (feats == 1).all()
    share = (masked == 0).all(axis=1).mean()
    assert 0 < share <= 4 * 9 / 100 and (masked == 0).mean() == pytest.approx(share)
