import errno
import itertools
import logging

import pytest
import torch

from espnet_smop.train.trainer import WithProgress, atomic_torch_save, complete_last_epoch


def test_a_failing_write_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pth"
    with atomic_torch_save():
        torch.save({"a": torch.ones(3)}, path)

        def full_disk(*args):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("os.fsync", full_disk)
        with pytest.raises(OSError, match=r"checkpoint.pth: No space left.*previous one is intact"):
            torch.save({"a": torch.zeros(3)}, path)
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pth"]


def test_torch_save_is_itself_again_afterwards():
    plain = torch.save
    with pytest.raises(RuntimeError), atomic_torch_save():
        assert torch.save is not plain
        raise RuntimeError
    assert torch.save is plain


def test_an_epoch_without_its_model_file_is_completed(tmp_path):
    model = {"w": torch.arange(3.0)}
    torch.save({"model": model, "reporter": {"epoch": 4}}, tmp_path / "checkpoint.pth")
    (tmp_path / "latest.pth").symlink_to("3epoch.pth")
    complete_last_epoch(tmp_path)
    assert torch.equal(torch.load(tmp_path / "4epoch.pth", weights_only=True)["w"], model["w"])
    assert (tmp_path / "latest.pth").resolve() == (tmp_path / "4epoch.pth").resolve()


def test_nothing_to_complete_in_a_new_experiment(tmp_path):
    complete_last_epoch(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_time_left_counts_the_epochs_to_come(monkeypatch, caplog):
    clock = itertools.count(step=6.0)  # a batch takes six seconds
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    caplog.set_level(logging.INFO)
    batches = WithProgress(list("abcd"), epoch=2, max_epoch=3)
    assert list(batches) == list("abcd")
    assert len(batches) == 4
    assert [record.getMessage() for record in caplog.records] == [
        "epoch 2/3, batch 2/4, 36 seconds left",
        "epoch 2/3, batch 4/4, 24 seconds left",
    ]
