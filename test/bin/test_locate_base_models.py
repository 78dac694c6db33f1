import pytest

from espnet_smop.bin.locate_base_models import main


def test_local_models_are_listed_and_missing_ones_named(tmp_path, capsys):
    (tmp_path / "whisper").mkdir()
    config = tmp_path / "c.yaml"
    config.write_text(
        f"audio_frontend: whisper\naudio_frontend_conf: {{model: {tmp_path}/whisper}}\n"
        f"video_frontend: null\nvideo_frontend_conf: {{model: {tmp_path}/absent}}\n"
    )
    main([str(config)])
    assert capsys.readouterr().out == f"audio_frontend {tmp_path}/whisper {tmp_path}/whisper\n"
    config.write_text(f"decoder_conf: {{model: {tmp_path}/absent}}\n")
    main([str(config), "--named"])
    assert capsys.readouterr().out == f"decoder {tmp_path}/absent\n"
    with pytest.raises(SystemExit, match="absent' is not a directory"):
        main([str(config)])
    (tmp_path / "above.yaml").write_text("base: c.yaml\n")
    with pytest.raises(SystemExit, match="absent' is not a directory"):
        main([str(tmp_path / "above.yaml")])
