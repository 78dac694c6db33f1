import pytest

from espnet_smop.decoder.directory import written_at_once


@pytest.mark.parametrize("exists", [False, True])
def test_replaces_or_leaves_alone(tmp_path, exists):
    out = tmp_path / "new parent" / "out"
    if exists:
        out.mkdir(parents=True)
        (out / "old").touch()
    with pytest.raises(RuntimeError, match="half way"), written_at_once(out) as directory:
        (directory / "half").touch()
        raise RuntimeError("half way")
    assert out.exists() == exists
    with written_at_once(out) as directory:
        (directory / "all").touch()
        assert not (out / "all").exists()
    assert [p.name for p in out.iterdir()] == ["all"]
    assert [p.name for p in out.parent.iterdir()] == ["out"]
