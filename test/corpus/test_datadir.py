import pytest

from espnet_smop.bin import data_dir
from espnet_smop.corpus import datadir
from espnet_smop.fileio.table import TableError, read_table


@pytest.fixture
def broken(tmp_path):
    """Make a directory with unsorted, doubled and unequal tables."""
    (tmp_path / "wav.scp").write_text("b_2 /x y/b2.flac\na_1 /a1.flac\nB_3 b3.flac\nc_4 c4.flac\n")
    (tmp_path / "video.scp").write_text("b_2 /x y/b2.mkv\na_1 a1.mkv\nB_3 b3.mkv\nd_5 d5.mkv\n")
    (tmp_path / "text").write_text("a_1 one two\nb_2 three\nb_2 again\nB_3\nc_4 x\nd_5 y\n")
    (tmp_path / "utt2spk").write_text("a_1 a\nb_2 b\nB_3 B\nc_4 c\nd_5 d\n")
    return tmp_path


def test_check_names_every_fault(broken, capsys):
    assert data_dir.main(["fix", "--check", str(broken)]) == 1
    said = capsys.readouterr().err
    for fault in [
        "wav.scp: not sorted (C order)",
        "text: duplicate id b_2",
        "utterance B_3 is empty in text",
        "utterance c_4 is not in video.scp",
        "utterance d_5 is not in wav.scp",
        "spk2utt: does not match utt2spk",
    ]:
        assert fault in said
    assert (broken / "text").read_text().startswith("a_1 one two\nb_2 three\nb_2 again")


def test_fix_keeps_what_all_tables_have(broken, capsys):
    assert data_dir.main(["fix", str(broken)]) == 0
    said = capsys.readouterr()
    assert "removed d_5: not in wav.scp" in said.err and "2 utterances, 3 removed" in said.out
    assert (broken / "wav.scp").read_text() == "a_1 /a1.flac\nb_2 /x y/b2.flac\n"
    assert (broken / "text").read_text() == "a_1 one two\nb_2 three\n"
    assert (broken / "spk2utt").read_text() == "a a_1\nb b_2\n"
    assert data_dir.main(["fix", "--check", str(broken)]) == 0


def test_segments(tmp_path):
    tables = {
        "wav.scp": {"rec": "r.mp4", "unused": "u.mp4"},
        "video.scp": {"rec": "r.mp4", "unused": "u.mp4"},
        "landmarks.scp": {"rec": "r.npy", "unused": "u.npy"},
        "segments": {"u1": "rec 0.00 1.20", "u2": "rec 1.20 -1", "u3": "rec 3 2", "u4": "gone 0 1"},
        "text": {f"u{i}": "a" for i in range(1, 5)},
        "utt2spk": {f"u{i}": "s" for i in range(1, 5)},
    }
    datadir.write_data_dir(tmp_path, tables)
    assert datadir.fix(tmp_path) == {
        "u3": "bad segment 'rec 3 2'",
        "u4": "not in wav.scp",
    }
    assert datadir.check(tmp_path) == []
    assert set(read_table(tmp_path / "landmarks.scp")) == {"rec"}
    # Written anew without segments, the old file does not linger.
    whole = {n: {"u1": "x"} for n in (*datadir.REQUIRED, "wav.scp")}
    datadir.write_data_dir(tmp_path, whole)
    assert not (tmp_path / "segments").exists() and datadir.check(tmp_path) == []


def test_c_order(tmp_path):
    # Of locale-aware sorting only this order is that of `LC_ALL=C sort`.
    datadir.write_table(tmp_path / "t", dict.fromkeys(["b", "a_1", "B", "a-2", "é", "a1"], "x"))
    keys = [line.split()[0] for line in (tmp_path / "t").read_text().splitlines()]
    assert keys == ["B", "a-2", "a1", "a_1", "b", "é"]


def test_errors(tmp_path):
    with pytest.raises(datadir.DataDirError, match="no such data directory; run stage 1"):
        datadir.read_data_dir(tmp_path / "none")
    (tmp_path / "text").write_text("a x\na y\n")
    with pytest.raises(TableError, match=r"text:2: duplicate id a"):
        read_table(tmp_path / "text")
    with pytest.raises(datadir.DataDirError, match=r"utt2spk: missing"):
        data_dir.main(["fix", str(tmp_path)])
    (tmp_path / "utt2spk").write_text("d x\n")
    with pytest.raises(datadir.DataDirError, match=r"has neither wav.scp nor video.scp"):
        data_dir.main(["fix", str(tmp_path)])
    (tmp_path / "wav.scp").write_text("b x\n")
    (tmp_path / "video.scp").write_text("c x\n")
    with pytest.raises(datadir.DataDirError, match="no utterance would be left"):
        data_dir.main(["fix", str(tmp_path)])
