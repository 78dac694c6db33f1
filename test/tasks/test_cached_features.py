import json
import re

import numpy as np
import pytest
import torch
from espnet2.train.distributed_utils import DistributedOption

from espnet_smop.bin.cache_feats import main as cache_feats
from espnet_smop.frontend.precomputed import FeatureCacheError
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.train.preprocessor import AVSRPreprocessor

QUIET = {"speech_mask": None, "video_mask": None, "flip_probability": 0.0, "random_crop": False}
INPUTS = {"audio": ("wav.scp,speech,sound", "speech"), "video": ("video.scp,video,video", "video")}


@pytest.fixture
def command(train_command, tmp_path):
    """A function that makes a training's arguments, with the features of some modalities cached."""

    def make(output_dir, cached=(), **changes):
        feats = {
            (part, data): f"{tmp_path}/cache/{part}_{modality}/feats.scp,{name}_feats,kaldi_ark"
            for modality, (data, name) in INPUTS.items()
            if modality in cached
            for part in ("train", "valid")
        }
        settings = {"max_epoch": 2, "preprocessor_conf": QUIET}
        return train_command(output_dir, feats=feats, **{**settings, **changes})

    return make


@pytest.fixture
def caches(command, dump_dir, tmp_path):
    """The caches of both modalities."""
    for kind in ("train", "valid"):
        (tmp_path / kind).symlink_to(dump_dir)
    words = ["--config", command("for_cache")[1], "--out", str(tmp_path / "cache")]
    cache_feats([*words, "--data_dir", *(str(tmp_path / k) for k in ("train", "valid"))])
    return tmp_path


def train_losses(directory):
    """The loss of each epoch, training and validation."""
    reporter = torch.load(directory / "checkpoint.pth", weights_only=True)["reporter"]
    return [
        float(stats[part]["loss_ce"])
        for _, stats in sorted(reporter["stats"].items())
        for part in ("train", "valid")
    ]


@pytest.mark.slow
def test_training_from_the_cache_gives_the_losses_of_training_without(command, caches):
    AVSRTask.main(cmd=command("without"))
    AVSRTask.main(cmd=command("with", cached=("audio", "video")))
    without, with_cache = (train_losses(caches / name) for name in ("without", "with"))
    assert len(without) == 4 and len(set(without)) == 4
    # 16 bits a value
    assert with_cache == pytest.approx(without, abs=2e-4)
    plain, cached = (
        torch.load(caches / d / "2epoch.pth", weights_only=True) for d in ("without", "with")
    )
    assert all(torch.allclose(plain[k], cached[k], atol=2e-3) for k in plain)


def options(words, mode="train"):
    args = AVSRTask.get_parser().parse_args(words)
    AVSRTask.build_model(args)
    return AVSRTask.build_iter_options(args, DistributedOption(), mode)


def test_a_cache_of_this_model_is_accepted(command, caches):
    for mode in ("train", "valid"):
        found = options(command("exp", cached=("audio", "video")), mode)
        assert [name for _, name, _ in found.data_path_and_name_and_type] == [
            "speech_feats", "video_feats", "text",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preprocessor_conf": QUIET | {"random_crop": True}}, "random_crop is on"),
        ({"preprocessor_conf": QUIET | {"video_multiple": 2}}, "video_multiple"),
        ({"video_frontend_conf": {"own_statistics": True}}, "own_statistics: the experiment's"),
        (
            {"projector_conf": {"fusion": {"video": "dci"}}},
            r"layers \(none in the cache",
        ),
        ({"video_frontend_conf": {"dtype": "bfloat16"}}, r"dtype \(torch.float32 in the cache"),
    ],
)
def test_a_cache_of_other_settings_is_refused(
    command, caches, changes, message, model_args, tiny_avhubert
):
    if "video_frontend_conf" in changes:
        changes["video_frontend_conf"]["model"] = tiny_avhubert
    with pytest.raises(FeatureCacheError, match=message):
        options(command("exp", cached=("video",), **changes))


def test_a_stale_cache_is_refused(command, caches):
    path = caches / "cache" / "train_audio" / "cache.json"
    description = json.loads(path.read_text())
    description["fingerprints"]["whisper"] = "another"
    path.write_text(json.dumps(description))
    with pytest.raises(FeatureCacheError, match=r"fingerprints.whisper \(another in the cache"):
        options(command("exp", cached=("audio",)))
    path.unlink()
    with pytest.raises(FeatureCacheError, match="there is no feature cache in .*train_audio"):
        options(command("exp", cached=("audio",)))


def test_utterances_that_the_cache_lacks_are_named(command, caches):
    scp = caches / "cache" / "train_video" / "feats.scp"
    lines = scp.read_text().splitlines(keepends=True)
    lost = lines.pop(3).split()[0]
    scp.write_text("".join(lines))
    with pytest.raises(FeatureCacheError, match=f"lacks utterance {re.escape(lost)} of"):
        options(command("exp", cached=("video",)))
    scp.write_text("".join(lines[1:]))
    with pytest.raises(FeatureCacheError, match="and 1 more of"):
        options(command("exp", cached=("video",)))


def test_training_takes_one_of_the_copies():
    feats = np.arange(24, dtype=np.float32).reshape(12, 2)
    conf = {"feats_copies": {"audio": 3}}
    train, valid = (AVSRPreprocessor(train, **conf) for train in (True, False))
    found = {train("uid", {"speech_feats": feats})["speech_feats"].tobytes() for _ in range(50)}
    assert found == {feats[i : i + 4].tobytes() for i in (0, 4, 8)}
    assert valid("uid", {"speech_feats": feats})["speech_feats"] is feats
    assert train("uid", {"video_feats": feats})["video_feats"] is feats
    for wrong in ({"audio": 0}, {"sound": 2}, {"audio": 1.5}):
        with pytest.raises(ValueError, match="feats_copies is"):
            AVSRPreprocessor(True, feats_copies=wrong)


def test_what_only_the_built_frontend_tells_is_refused(model_args, monkeypatch):
    """An encoder of one's own that is trained has no setting that says so."""
    args = model_args(
        preprocessor_conf=QUIET,
        train_data_path_and_name_and_type=[("feats.scp", "speech_feats", "kaldi_ark")],
        valid_data_path_and_name_and_type=[("feats.scp", "speech_feats", "kaldi_ark")],
    )
    AVSRTask.build_model(args)
    monkeypatch.setattr("espnet_smop.frontend.whisper.freeze", lambda encoder: encoder)
    with pytest.raises(FeatureCacheError, match="'speech_feats' .*changes the audio_frontend"):
        AVSRTask.build_model(args)
    args.preprocessor = "minimal_parts:PlainPreprocessor"
    with pytest.raises(FeatureCacheError, match="minimal_parts:PlainPreprocessor may change the"):
        AVSRTask.build_model(args)
