import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from espnet_smop.frontend.log_mel import LogMel


@pytest.mark.parametrize("num_mels", [80, 128])
def test_equals_hugging_face_extractor(num_mels):
    rng = np.random.default_rng(0)
    waves = [rng.standard_normal(n).astype(np.float32) * 0.3 for n in (16000, 7345, 399)]
    expected = WhisperFeatureExtractor(feature_size=num_mels)(
        waves, sampling_rate=16000, return_tensors="pt"
    ).input_features
    batch = torch.full((3, 16000), 9.0)  # the padding must not be looked at
    for row, wave in zip(batch, waves, strict=True):
        row[: len(wave)] = torch.from_numpy(wave)
    lengths = torch.tensor([len(w) for w in waves])
    log_mel = LogMel(num_mels=num_mels)
    full = log_mel(batch, lengths, 480000)
    torch.testing.assert_close(full, expected, atol=1e-4, rtol=0)
    # Cutting earlier changes nothing in what is left, but for windows that reach over the cut.
    short = log_mel(batch, lengths, 16000 + 640)
    torch.testing.assert_close(short[..., :102], expected[..., :102], atol=1e-4, rtol=0)


def test_full_length_utterance_equals_hugging_face_extractor():
    wave = np.random.default_rng(1).standard_normal(480000).astype(np.float32)
    expected = WhisperFeatureExtractor()(wave, sampling_rate=16000, return_tensors="pt")
    found = LogMel(num_mels=80)(torch.from_numpy(wave)[None], torch.tensor([480000]), 480000)
    torch.testing.assert_close(found, expected.input_features, atol=1e-4, rtol=0)


def test_stays_float32_under_autocast():
    wave, lengths = torch.randn(1, 3200), torch.tensor([3200])
    log_mel = LogMel(num_mels=80)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = log_mel(wave, lengths, 3200)
    assert torch.equal(found, log_mel(wave, lengths, 3200))
