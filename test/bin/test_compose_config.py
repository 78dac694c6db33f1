import pytest
import yaml

from espnet_smop.bin.compose_config import main


def test_one_complete_file_with_changes(tmp_path, capsys):
    (tmp_path / "base.yaml").write_text("optim_conf: {lr: 1.0e-3, eps: 0.1}\nmax_epoch: 8\n")
    config = tmp_path / "train.yaml"
    config.write_text("base: base.yaml\nseed: 1\n")
    main([str(config), "optim_conf.lr=5.0e-4", "max_epoch=2", "video_frontend=null"])
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
    ],
)
def test_mistakes_are_named(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.yaml").write_text("seed: 1\n")
    with pytest.raises(SystemExit, match=message):
        main(arguments)
