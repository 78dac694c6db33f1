import os

import pytest
import torch

from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.train.data_workers import data_workers


@pytest.mark.parametrize(
    ("cores", "gpus", "expected"),
    [(2, 0, 1), (64, 0, 1), (1, 1, 1), (2, 1, 1), (4, 1, 3), (64, 1, 4), (16, 8, 1), (32, 8, 3)],
)
def test_auto(monkeypatch, cores, gpus, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert data_workers("auto") == expected


def test_it_is_an_option_of_training(tmp_path, capsys):
    def parsed(value):
        config = tmp_path / "train.yaml"
        config.write_text(f"num_workers: {value}\n")
        return AVSRTask.get_parser().parse_args(["--config", str(config)]).num_workers

    assert parsed(3) == 3 and parsed("auto") == data_workers("auto")
    assert AVSRTask.get_parser().parse_args(["--num_workers", "2"]).num_workers == 2
    for wrong in (1.5, "many"):
        with pytest.raises(SystemExit):
            parsed(wrong)
        assert "num_workers" in capsys.readouterr().err.strip().splitlines()[-1]
