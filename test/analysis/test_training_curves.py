import pytest
import torch

from espnet_smop.analysis.training_curves import read_curves


def test_curves_by_part_and_statistic(tmp_path):
    stats = {2: {"train": {"loss": 1.5}, "valid": {"acc": 0.5}}, 1: {"train": {"loss": 3.0}}}
    torch.save({"reporter": {"stats": stats, "epoch": 2}}, tmp_path / "checkpoint.pth")
    curves = read_curves(tmp_path)
    assert curves == {("train", "loss"): {1: 3.0, 2: 1.5}, ("valid", "acc"): {2: 0.5}}
    assert list(curves["train", "loss"]) == [1, 2]


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_is_said_and_ends_nothing(tmp_path, caplog, content):
    path = tmp_path / "checkpoint.pth"
    if content is None:
        torch.save({"model": {}}, path)
    else:
        path.write_bytes(content)
    assert read_curves(tmp_path) == {}
    assert f"{path}: no report of a training could be read" in caplog.text
    path.unlink()
    assert read_curves(tmp_path) == {}
