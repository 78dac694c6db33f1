import pytest

from espnet_smop.bin.config_modalities import main, modalities


@pytest.mark.parametrize(
    ("config", "arguments", "expected"),
    [
        ("audio_frontend: whisper\nvideo_frontend: null\n", [], ["audio"]),
        ("audio_frontend: null\n", [], ["video"]),
        ("max_epoch: 3\n", [], ["audio", "video"]),
        ("max_epoch: 3\n", ["--video_frontend", "null", "--max_epoch", "5"], ["audio"]),
        ("audio_frontend: null\n", ["--audio_frontend", "whisper"], ["audio", "video"]),
    ],
)
def test_frontends_decide(tmp_path, config, arguments, expected):
    path = tmp_path / "c.yaml"
    path.write_text(config)
    assert modalities(path, arguments) == expected


def test_no_frontend_is_an_error(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("audio_frontend: null\nvideo_frontend: null\n")
    with pytest.raises(SystemExit, match="neither audio_frontend nor video_frontend"):
        main([str(path)])


def test_a_base_is_read(tmp_path):
    (tmp_path / "base.yaml").write_text("audio_frontend: whisper\nvideo_frontend: null\n")
    (tmp_path / "c.yaml").write_text("base: base.yaml\n")
    assert modalities(tmp_path / "c.yaml") == ["audio"]
