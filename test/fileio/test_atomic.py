import errno
import os

import pytest

from espnet_smop.fileio.atomic import (
    atomic_directory,
    atomic_path,
    atomic_write,
    check_replaceable,
)


def test_only_whole_files_appear(tmp_path):
    path = tmp_path / "deep er" / "file.txt"
    with atomic_write(path) as file:
        file.write("whole é")
        assert not path.exists()
    with pytest.raises(KeyError), atomic_write(path) as file:
        file.write("half")
        raise KeyError
    assert path.read_text(encoding="utf-8") == "whole é"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_path_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "a.mkv") as temporary:
        assert temporary.suffix == ".mkv" and temporary.parent == tmp_path
        temporary.write_bytes(b"1")
    assert (tmp_path / "a.mkv").read_bytes() == b"1"


@pytest.mark.parametrize("exists", [False, True])
def test_replaces_or_leaves_alone(tmp_path, exists):
    out = tmp_path / "new parent" / "out"
    if exists:
        out.mkdir(parents=True)
        (out / "old").touch()
    with pytest.raises(RuntimeError, match="half way"), atomic_directory(out) as directory:
        (directory / "half").touch()
        raise RuntimeError("half way")
    assert out.exists() == exists
    with atomic_directory(out) as directory:
        (directory / "all").touch()
        assert not (out / "all").exists()
    assert [p.name for p in out.iterdir()] == ["all"]
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_of_two_at_once_one_stays_whole(tmp_path):
    out = tmp_path / "out"
    with atomic_directory(out) as first:
        (first / "a").touch()
        with atomic_directory(out) as second:
            (second / "b").touch()
        assert [p.name for p in out.iterdir()] == ["b"]
        (first / "c").touch()
    assert sorted(p.name for p in out.iterdir()) == ["a", "c"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_the_old_stays_if_the_new_cannot_be_put_in_place(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    rename = os.rename

    def fail_once(source, target):
        if os.path.basename(source) == "new":
            raise OSError(errno.EIO, "Input/output error", str(target))
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises(OSError, match="Input/output"), atomic_directory(out) as directory:
        (directory / "half").touch()
    assert [p.name for p in out.iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_only_own_output_is_replaced(tmp_path):
    check_replaceable(tmp_path / "missing", "own")
    check_replaceable(tmp_path, "own")
    (tmp_path / "other").touch()
    with pytest.raises(ValueError, match=r"would be replaced, but it has other files \(no own\)"):
        check_replaceable(tmp_path, "own")
    (tmp_path / "own").mkdir()
    check_replaceable(tmp_path, "own")
    with pytest.raises(ValueError, match=r"\(no a\)"):
        check_replaceable(tmp_path, "a", "b*/own")
    (tmp_path / "b1/own").mkdir(parents=True)
    check_replaceable(tmp_path, "a", "b*/own")
