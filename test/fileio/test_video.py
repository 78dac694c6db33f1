from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from espnet2.train import dataset, iterable_dataset

from espnet_smop.fileio import video


@pytest.fixture
def frames():
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (12, 13)).astype(np.float32)
    picture = np.kron(small, np.ones((8, 8)))[:, :104]
    return np.stack([np.roll(picture, 2 * t, axis=1)[:, :96] for t in range(7)]).astype(np.uint8)


def test_round_trip_is_close_and_keeps_the_range(tmp_path, frames):
    path = tmp_path / "a clip.mkv"
    video.write_video(path, frames)
    read = video.read_video(path)
    assert read.shape == frames.shape and read.dtype == np.uint8
    error = read.astype(int) - frames
    assert 10 * np.log10(255**2 / (error**2).mean()) > 42
    # Full range: neither black nor white is squeezed.
    extremes = np.zeros((2, 96, 96), np.uint8)
    extremes[:, :48] = 255
    video.write_video(path, extremes)
    read = video.read_video(path)
    assert read[:, 60:].max() <= 3 and read[:, :36].min() >= 252
    assert [p.name for p in tmp_path.iterdir()] == ["a clip.mkv"]


def test_lossless_codec_is_exact(tmp_path, frames):
    path = tmp_path / "a.mkv"
    video.write_video(path, frames, codec="ffv1", options={})
    np.testing.assert_array_equal(video.read_video(path), frames)


@pytest.mark.parametrize("pix_fmt", ["gray", "yuvj420p", "yuv420p", "rgb24"])
def test_grey_is_that_of_pyav(tmp_path, frames, pix_fmt):
    path = tmp_path / "a.mkv"
    codec = "ffv1" if pix_fmt in ("gray", "rgb24") else "libx264"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, width=90, height=96)  # padded rows
        stream.pix_fmt = "bgr0" if pix_fmt == "rgb24" else pix_fmt
        for picture in frames[:, :, :90]:
            colour = np.stack([picture, picture // 2, 255 - picture], axis=2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(colour, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    np.testing.assert_array_equal(video.read_video(path), expected)


def test_one_frame(tmp_path, frames):
    video.write_video(tmp_path / "a.mkv", frames[:1])
    assert video.read_video(tmp_path / "a.mkv").shape == (1, 96, 96)


def test_failed_write_leaves_nothing(tmp_path, frames):
    for wrong in (frames.astype(np.float32), frames[0], frames[:0]):
        with pytest.raises(ValueError, match="expected uint8 frames"):
            video.write_video(tmp_path / "a.mkv", wrong)
    with pytest.raises(ValueError, match="nonesuch"):
        video.write_video(tmp_path / "a.mkv", frames, codec="nonesuch")
    assert not list(tmp_path.iterdir())


def test_unreadable_files_are_one_line_errors(tmp_path, frames):
    path = tmp_path / "a.mkv"
    video.write_video(path, frames)
    garbage = tmp_path / "garbage.mkv"
    garbage.write_bytes(b"no video")
    for wrong in (tmp_path / "none.mkv", garbage):
        with pytest.raises(video.VideoFileError) as error:
            video.read_video(wrong)
        assert str(wrong) in str(error.value) and "stage 3" in str(error.value)
        assert "\n" not in str(error.value)


@pytest.fixture
def scps(tmp_path, frames):
    lines, texts = [], []
    for i in range(3):
        path = tmp_path / f"clip {i}.mkv"
        video.write_video(path, frames[: i + 2])
        lines.append(f"utt{i} {path}\n")
        texts.append(f"utt{i} 1 2 3\n")
    (tmp_path / "video.scp").write_text("".join(lines))
    (tmp_path / "text_int").write_text("".join(texts))
    return tmp_path


def test_espnet_datasets_read_it(scps):
    video.register()
    video.register()
    names = [
        (str(scps / "video.scp"), "video", "video"),
        (str(scps / "text_int"), "text", "text_int"),
    ]

    def as_float(uid, data):
        return {k: v.astype(np.float32) for k, v in data.items()}

    mapped = dataset.ESPnetDataset(names, preprocess=as_float)
    assert len(mapped.loader_dict["video"]) == 3
    for i in range(3):
        assert mapped[f"utt{i}"][1]["video"].shape == (i + 2, 96, 96)
    streamed = iterable_dataset.IterableESPnetDataset(names, preprocess=as_float)
    assert {u: d["video"].shape for u, d in streamed} == {
        f"utt{i}": (i + 2, 96, 96) for i in range(3)
    }


def test_scp_reader_errors(scps):
    reader = video.VideoScpReader(scps / "video.scp")
    assert list(reader) == ["utt0", "utt1", "utt2"] and "utt1" in reader
    with pytest.raises(KeyError, match=r"video.scp has no id utt9"):
        reader["utt9"]
    (scps / "bad.scp").write_text("utt0 a.mkv\nutt0 b.mkv\n")
    with pytest.raises(video.VideoFileError, match=r"bad.scp:2: duplicate id utt0"):
        video.VideoScpReader(scps / "bad.scp")
    (scps / "bad.scp").write_text("utt0\n")
    with pytest.raises(
        video.VideoFileError, match=r"bad.scp: id utt0 has no path, expected `ID PATH`"
    ):
        video.VideoScpReader(scps / "bad.scp")


def test_the_same_pictures_make_the_same_file(tmp_path):
    rng = np.random.default_rng(0)
    small = cv2.resize(rng.integers(60, 200, (12, 12), dtype=np.uint8), (120, 120))
    moved = [np.roll(small, (t % 7, t), (0, 1))[:96, :96] for t in range(50)]
    pictures = np.clip(np.stack(moved) + rng.normal(0, 4, (50, 96, 96)), 0, 255).astype(np.uint8)
    contents = set()
    for number in range(6):
        video.write_video(tmp_path / f"{number}.mkv", pictures)
        contents.add((tmp_path / f"{number}.mkv").read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize(
    ("numerator", "denominator", "rate"), [(0, 0, None), (25, 1, 25.0), (30000, 1001, 30000 / 1001)]
)
def test_a_damaged_header_has_no_frame_rate(numerator, denominator, rate):
    """0 / 0 was found by fuzzing; comparing it with a number is an error."""
    found = SimpleNamespace(numerator=numerator, denominator=denominator)
    assert video._frame_rate(SimpleNamespace(average_rate=found)) == rate
