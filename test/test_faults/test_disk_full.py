"""A disk that is full, or may not be written, ends in one line and harms nothing that is there."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from espnet_smop.corpus import datadir
from espnet_smop.corpus.clips import Clip, write_clip
from espnet_smop.fileio import atomic
from espnet_smop.fileio.table import read_table
from espnet_smop.fileio.video import read_video, write_video
from espnet_smop.train.trainer import atomic_torch_save

FULL = Path("/dev/full")
"""Linux's file to which nothing can be written for want of space."""

needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")


@pytest.fixture
def full_disk(monkeypatch):
    """Let every temporary file be one on a full disk: writing to it fails when it is flushed."""
    token_hex = atomic.secrets.token_hex
    made = []

    def name(size):
        token = token_hex(size)
        made.append(token)
        return token

    def fill(directory):
        class Names:
            @staticmethod
            def token_hex(size):
                token = name(size)
                for suffix in (".pth", ".mkv", ".flac", ".scp", ".txt", ""):
                    link = Path(directory, f"{atomic.PARTIAL}{token}{suffix}")
                    link.symlink_to(FULL)
                return token

        monkeypatch.setattr(atomic, "secrets", Names)

    return fill


def clean(directory):
    return sorted(p.name for p in directory.iterdir() if not p.is_symlink())


@needs_full
def test_a_checkpoint_on_a_full_disk(tmp_path, full_disk):
    path = tmp_path / "checkpoint.pth"
    with atomic_torch_save():
        torch.save({"a": torch.ones(30000)}, path)
        full_disk(tmp_path)
        with pytest.raises(OSError, match=r"checkpoint.pth: No space left.*previous one is intact"):
            torch.save({"a": torch.zeros(30000)}, path)
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.ones(30000))
    assert clean(tmp_path) == ["checkpoint.pth"]


@needs_full
def test_tables_and_clips_on_a_full_disk(tmp_path, full_disk):
    frames = np.random.default_rng(0).integers(0, 255, (9, 96, 96), dtype=np.uint8)
    datadir.write_table(tmp_path / "wav.scp", {"a": "old"})
    write_video(tmp_path / "a.mkv", frames)
    full_disk(tmp_path)
    with pytest.raises(OSError) as raised:
        datadir.write_table(tmp_path / "wav.scp", {"a": "x" * 100000})
    assert raised.value.errno == errno.ENOSPC
    with pytest.raises(OSError):
        write_video(tmp_path / "a.mkv", 255 - frames)
    samples = np.random.default_rng(0).normal(size=9 * 640).astype(np.float32)
    with pytest.raises((OSError, RuntimeError)):
        write_clip(Clip("b", samples, frames), audio=tmp_path / "b.flac", video=tmp_path / "b.mkv")
    assert read_table(tmp_path / "wav.scp") == {"a": "old"}
    assert np.abs(read_video(tmp_path / "a.mkv").astype(int) - frames).mean() < 8
    assert clean(tmp_path) == ["a.mkv", "wav.scp"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written(tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save({"a": torch.ones(3)}, path)
    tmp_path.chmod(0o500)
    with atomic_torch_save(), pytest.raises(OSError, match=r"Permission denied.*is intact"):
        torch.save({"a": torch.zeros(3)}, path)
    tmp_path.chmod(0o700)
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.ones(3))


def test_a_directory_that_is_a_file(tmp_path):
    (tmp_path / "exp").touch()
    with atomic_torch_save(), pytest.raises(OSError, match=r"cannot write checkpoint .*exp"):
        torch.save({}, tmp_path / "exp" / "checkpoint.pth")
