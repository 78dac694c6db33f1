import sys

import pytest
import yaml

from espnet_smop.tasks.avsr import AVSRTask


@pytest.fixture
def config(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "video_frontend: null\noptim_conf: {lr: 0.5, eps: 0.1}\nmax_epoch: 7\nbatch_type: numel\n"
        "projector_conf: {routing: jejr}\n"
    )
    path = tmp_path / "train.yaml"
    path.write_text("base: base.yaml\noptim_conf: {lr: 0.25}\nmax_epoch: 3\n")
    return str(path)


def test_arguments_win_over_the_config_and_this_over_its_base(config):
    args = AVSRTask.get_parser().parse_args(
        ["--config", config, "--max_epoch", "2", "--projector_conf", "top_k=1"]
    )
    assert (args.max_epoch, args.batch_type, args.video_frontend) == (2, "numel", None)
    assert args.optim_conf == {"lr": 0.25, "eps": 0.1}
    assert args.projector_conf == {"routing": "jejr", "top_k": 1}
    assert args.config == config and args.required == ["output_dir"]
    # What training writes as config.yaml stands alone
    assert "base" not in vars(args)


def test_print_config_shows_a_complete_config_that_gives_the_same_arguments(
    config, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["avsr_train", "--config", config, "--print_config"])
    with open(tmp_path / "printed.yaml", "w") as file:
        AVSRTask.print_config(file=file)
    printed = yaml.safe_load((tmp_path / "printed.yaml").read_text())
    assert printed["optim_conf"]["lr"] == 0.25 and printed["optim_conf"]["eps"] == 0.1
    assert printed["projector_conf"]["routing"] == "jejr"
    assert printed["projector_conf"]["top_k"] == 2
    again = AVSRTask.get_parser().parse_args(["--config", str(tmp_path / "printed.yaml")])
    assert again.max_epoch == 3 and again.video_frontend is None


def test_mistakes_end_with_a_line_that_names_them(config, tmp_path, capsys):
    for text, message in (
        ("base: absent.yaml\n", "absent.yaml, the base of"),
        ("base: base.yaml\nmax_epochs: 3\n", "unrecognized arguments: max_epochs (from "),
    ):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(SystemExit):
            AVSRTask.get_parser().parse_args(["--config", str(tmp_path / "bad.yaml")])
        assert message in capsys.readouterr().err
