from pathlib import Path

import numpy as np
import torch

from espnet_smop.frontend.filterbank import stacked_filterbanks

GOLDEN = Path(__file__).parents[1] / "golden"


def test_equals_python_speech_features_in_a_batch():
    # Expected: python_speech_features 0.6 `logfbank`, four frames stacked, layer norm per frame.
    with np.load(GOLDEN / "filterbank.npz") as arrays:
        speech = [torch.from_numpy(arrays[f"speech{i}"]).float() for i in range(3)]
        expected = [torch.from_numpy(arrays[f"stacked{i}"]) for i in range(3)]
    batch = torch.full((3, 16000), 7.0)
    for row, wave in zip(batch, speech, strict=True):
        row[: len(wave)] = wave
    found, lengths = stacked_filterbanks(batch, torch.tensor([len(w) for w in speech]))
    assert lengths.tolist() == [len(e) for e in expected]
    for row, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(row[: len(wanted)], wanted, atol=1e-4, rtol=0)
        assert not row[len(wanted) :].any()


def test_does_not_depend_on_the_scale():
    speech, lengths = torch.randn(1, 4000), torch.tensor([4000])
    one, _ = stacked_filterbanks(speech, lengths)
    other, _ = stacked_filterbanks(speech * 32768, lengths)
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
