import types

import numpy as np
import pytest
import torch

from espnet_smop import noise_levels
from espnet_smop.noise_levels import InputsAtLevels, decode_at_levels, noise_level
from espnet_smop.tasks.avsr import AVSRTask


def test_levels_are_named_as_they_are_written():
    assert noise_level("-5") == ("snr-5", -5.0)
    assert noise_level("2.50") == ("snr2.50", 2.5)
    assert noise_level("") == noise_level("None") == noise_level("clean") == ("clean", None)
    with pytest.raises(ValueError, match="snr is 'loud', expected a ratio in dB, or clean"):
        noise_level("loud")


def plus(amount):
    """Return a preprocessor that works in place."""

    def preprocess(uid, data):
        data["speech"] += amount
        return data

    return preprocess


def test_a_batch_has_what_changes_from_level_to_level():
    levels = {"clean": None, "a": plus(1), "same": plus(1), "back": plus(0), "video": dim}
    inputs = InputsAtLevels(levels, AVSRTask.build_collate_fn(None, train=False))
    rng = np.random.default_rng(0)
    data = [
        {
            "speech": rng.normal(size=n * 640).astype(np.float32),
            "video": rng.normal(size=(n, 8, 8)).astype(np.float32),
        }
        for n in (3, 2)
    ]
    before = [utterance["speech"].copy() for utterance in data]
    uids, batches = inputs.collate(
        [(f"u{i}", inputs.prepare(f"u{i}", utterance)) for i, utterance in enumerate(data)]
    )
    assert uids == ["u0", "u1"] and list(batches) == list(levels)
    assert all(np.array_equal(a, b["speech"]) for a, b in zip(before, data, strict=True))
    speech, video = {"speech", "speech_lengths"}, {"video", "video_lengths"}
    changed = [set(batch) for batch in batches.values()]
    assert changed == [speech | video, speech, set(), speech, video]
    assert batches["clean"]["speech_lengths"].tolist() == [1920, 1280]
    assert torch.equal(batches["back"]["speech"], batches["clean"]["speech"])
    row = batches["a"]["speech"][1]
    assert np.array_equal(row[:1280], before[1] + 1) and not row[1280:].any()


def dim(uid, data):
    return {**data, "video": data["video"] / 2}


class Clock:
    """Time that passes only where something is done; a model that takes its time."""

    device = "cpu"
    media_tokens = 0
    view = types.SimpleNamespace(modalities=("audio", "video"), task="avsr", rates={})

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def encode(self, batch, *, modalities):
        [modality] = modalities
        self.now += {"audio": 1.0, "video": 5.0}[modality]
        name = {"audio": "speech"}.get(modality, modality)
        return {modality: batch[name]}, {modality: batch[f"{name}_lengths"]}, {}

    def search(self, encoded):
        self.now += 10.0
        self.media_tokens += 3
        features, lengths, _ = encoded
        assert features.keys() == lengths.keys() == {"audio", "video"}
        text = f"{features['audio'].sum()} {features['video'].sum()}"
        return [[types.SimpleNamespace(text=text)] for _ in lengths["audio"]]


def test_a_level_costs_what_it_costs_alone(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(noise_levels, "time", clock)

    def batches():
        for speech in (1.0, 2.0):
            clock.now += 100.0  # reading
            lengths = torch.tensor([16000, 8000])
            audio = {"speech": torch.full((1,), speech), "speech_lengths": lengths}
            video = {"video": torch.full((1,), 7.0), "video_lengths": lengths // 640}
            noisy = {"speech": torch.full((1,), speech + 10), "speech_lengths": lengths}
            yield ["u", "v"], {"clean": {**audio, **video}, "snr0": noisy, "same": {}}

    decoded = []
    for part in decode_at_levels(clock, batches()):
        decoded.append(part)
    assert [d.level for d in decoded] == 2 * ["clean", "snr0", "same"]
    assert [d.nbest[0][0].text for d in decoded] == [
        "1.0 7.0", "11.0 7.0", "11.0 7.0", "2.0 7.0", "12.0 7.0", "12.0 7.0",
    ]  # fmt: skip
    assert all(d.uids == ["u", "v"] and d.costs.utterances == 2 for d in decoded)
    assert {d.costs.decoding_seconds for d in decoded} == {100.0 + 1 + 5 + 10}
    assert {d.costs.speech_seconds for d in decoded} == {1.5}
    assert {d.costs.media_tokens for d in decoded} == {3}
    assert clock.now == 2 * (100 + 5 + 2 * 1 + 3 * 10)
