import json

import pytest
import soundfile
import torch

from espnet_smop.frontend.avhubert import AVHuBERTFrontend
from espnet_smop.frontend.whisper import WhisperFrontend
from pretraining.encoder import Units, main

SIZES = {
    "audio": {"d_model": 16, "encoder_layers": 1, "encoder_ffn_dim": 16},
    "video": {
        "encoder_embed_dim": 16,
        "encoder_layers": 1,
        "encoder_ffn_embed_dim": 16,
        "conv_pos_groups": 2,
        "resnet_stem_channels": 4,
        "resnet_channels": [4, 4, 4, 4],
    },
}


@pytest.mark.parametrize(
    ("modality", "frontend", "shape"),
    [("audio", WhisperFrontend, (2, 16000)), ("video", AVHuBERTFrontend, (2, 10, 88, 88))],
)
def test_the_result_is_a_base_model(dump_dir, tmp_path, modality, frontend, shape):
    noise = torch.randn(16000).numpy() * 0.1
    soundfile.write(tmp_path / "noise.wav", noise, 16000)
    out = tmp_path / "base" / modality
    command = ["--modality", modality, "--out", str(out), "--epochs", "1", "--num_workers", "0"]
    command += ["--train_dir", str(dump_dir), "--valid_dir", str(dump_dir)]
    command += ["--noise", str(tmp_path / "noise.wav")]
    command += ["--encoder_conf", json.dumps(SIZES[modality])]
    main(command)
    loaded = frontend(model=str(out))
    features, _ = loaded(torch.randn(shape), torch.tensor([shape[1], shape[1] // 2]))
    assert features.shape[-1] == loaded.output_size() == 16
    assert json.loads((out / "pretraining.json").read_text())["valid_wer"] >= 0

    before = (out / "model.safetensors").stat().st_mtime_ns
    main(command)  # complete: kept as it is
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="made with other settings"):
        main([*command, "--lr", "0.1"])


@pytest.mark.parametrize(("separator", "known", "expected"), [("", 4, "cab a"), (" ", 3, "cab b")])
def test_units(separator, known, expected):
    units = Units(separator, ["a cab", "b"])
    assert len(units) == known
    assert units.decode(units.encode("cab b" if separator else "cab xa")) == expected
    assert units.decode(units.encode("xyz")) == ""
