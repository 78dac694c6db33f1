import pytest

from espnet_smop.corpus.shapes import durations, make_shapes


@pytest.fixture
def data_dir(tmp_path):
    (tmp_path / "text").write_text("b two\na one\n")
    (tmp_path / "utt2num_samples").write_text("a 640\nb 16001\nc 5\n")
    (tmp_path / "utt2num_frames").write_text("a 2\nb 25\nc 1\n")
    return tmp_path


def test_shapes_are_sorted_and_hold_the_longer_modality(data_dir):
    make_shapes(data_dir, data_dir / "out")
    assert (data_dir / "out" / "speech_shape").read_text() == "a 640\nb 16001\n"
    assert (data_dir / "out" / "video_shape").read_text() == "a 2\nb 25\n"
    assert (data_dir / "out" / "duration_shape").read_text() == "a 2\nb 26\n"


def test_one_modality_is_enough(data_dir):
    (data_dir / "utt2num_frames").unlink()
    assert durations(data_dir) == {"a": 1, "b": 26}


def test_missing_counts_are_named(data_dir, tmp_path):
    (data_dir / "utt2num_frames").write_text("a 2\n")
    with pytest.raises(ValueError, match="utt2num_frames lacks b"):
        make_shapes(data_dir, tmp_path / "out")
    for name in ("utt2num_samples", "utt2num_frames"):
        (data_dir / name).unlink()
    with pytest.raises(ValueError, match="run stage 3 again"):
        make_shapes(data_dir, tmp_path / "out")
