import pytest
import yaml

from espnet_smop.base_model import BaseModelError
from espnet_smop.bin.config import main
from espnet_smop.config import ConfigError


def test_one_complete_file_with_changes(tmp_path, capsys):
    (tmp_path / "base.yaml").write_text("optim_conf: {lr: 1.0e-3, eps: 0.1}\nmax_epoch: 8\n")
    config = tmp_path / "train.yaml"
    config.write_text("base: base.yaml\nseed: 1\n")
    main(["show", str(config), "optim_conf.lr=5.0e-4", "max_epoch=2", "video_frontend=null"])
    assert yaml.safe_load(capsys.readouterr().out) == {
        "optim_conf": {"lr": 5.0e-4, "eps": 0.1},
        "max_epoch": 2,
        "seed": 1,
        "video_frontend": None,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.yaml"], "absent.yaml does not exist"),
        (["train.yaml", "seed"], "'seed' is not of the form KEY=VALUE"),
        (["train.yaml", "a..b=1"], "KEY.KEY=VALUE"),
        (["train.yaml", "a=[1"], r"'a=\[1': the value is not YAML"),
    ],
)
def test_mistakes_are_named(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.yaml").write_text("seed: 1\n")
    with pytest.raises(ConfigError, match=message):
        main(["show", *arguments])


def test_modalities_take_the_options_of_training(tmp_path, capsys):
    config = tmp_path / "c.yaml"
    config.write_text("max_epoch: 3\n")
    main(["modalities", str(config), "--video_frontend", "null", "--max_epoch", "5"])
    assert capsys.readouterr().out == "audio\n"
    main(["modalities", str(config)])
    assert capsys.readouterr().out == "audio video\n"


def test_base_models_are_listed_and_missing_ones_named(tmp_path, capsys):
    (tmp_path / "whisper").mkdir()
    config = tmp_path / "c.yaml"
    config.write_text(
        f"audio_frontend: whisper\naudio_frontend_conf: {{model: {tmp_path}/whisper}}\n"
        f"video_frontend: null\nvideo_frontend_conf: {{model: {tmp_path}/absent}}\n"
    )
    main(["base_models", str(config)])
    audio = f"audio_frontend {tmp_path}/whisper {tmp_path}/whisper\n"
    assert capsys.readouterr().out == audio
    (tmp_path / "tokenizer").mkdir()
    with config.open("a") as file:
        file.write(f"decoder_conf: {{tokenizer: {tmp_path}/tokenizer}}\n")
    main(["base_models", str(config)])
    tokenizer = f"{tmp_path}/tokenizer"
    assert capsys.readouterr().out == f"{audio}decoder.tokenizer {tokenizer} {tokenizer}\n"
    config.write_text(f"decoder_conf: {{model: {tmp_path}/absent}}\n")
    main(["base_models", str(config), "--named"])
    assert capsys.readouterr().out == f"decoder {tmp_path}/absent\n"
    with pytest.raises(BaseModelError, match="absent' is not a directory"):
        main(["base_models", str(config)])
    (tmp_path / "above.yaml").write_text("base: c.yaml\n")
    with pytest.raises(BaseModelError, match="absent' is not a directory"):
        main(["base_models", str(tmp_path / "above.yaml")])
