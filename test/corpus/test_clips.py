from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from espnet_smop.corpus import media
from espnet_smop.corpus.clips import ClipError, Recording, cut_clips, write_clip
from espnet_smop.corpus.landmarks import DetectedLandmarks
from espnet_smop.fileio.video import read_video


def recording(path, *segments, kind="face"):
    return Recording("rec", str(path), str(path), kind, segments or (("utt", 0, None),))


def test_pieces_are_the_whole_cut_up(tmp_path, make):
    path = make.mp4(tmp_path / "a.mp4", *make.content(1, frames=40))
    points = make.landmarks(40, motion=0.5)

    def landmarks(name, video):
        assert (name, video) == ("rec", str(path))
        return points

    (whole,), notes = cut_clips(recording(path), landmarks, keep_all=False)
    assert notes == [] and whole.frames.shape == (40, 96, 96) and whole.samples.shape == (25600,)
    pieces, _ = cut_clips(
        recording(path, ("a", 0, 13), ("b", 13, 30), ("c", 30, 99)), landmarks, keep_all=False
    )
    np.testing.assert_array_equal(np.concatenate([p.frames for p in pieces]), whole.frames)
    np.testing.assert_array_equal(np.concatenate([p.samples for p in pieces]), whole.samples)
    assert [len(p.frames) for p in pieces] == [13, 17, 10]
    with pytest.raises(ClipError, match=r"utterance d begins at 2\.00 s, the clip ends at 1\.60 s"):
        cut_clips(recording(path, ("d", 50, 60)), landmarks, keep_all=True)


@pytest.mark.parametrize("delay", [0.2, -0.2])
def test_streams_that_do_not_start_together(tmp_path, make, delay):
    """A click at 0.5 s of the clock stays at 0.5 s of the picture, whichever starts first."""
    frames, audio = make.content(1, frames=30)
    sound = np.zeros(len(audio), np.float32)
    click = round((0.5 - max(delay, 0)) * 16000)
    sound[click : click + 40] = 0.9
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 160, 160, "yuv420p"
        track = container.add_stream("flac", rate=16000, layout="mono")
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="gray")
            frame.pts, frame.time_base = number + round(max(-delay, 0) * 25), Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        frame = av.AudioFrame.from_ndarray(
            (sound[None] * 32767).astype(np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = 16000
        frame.pts, frame.time_base = round(max(delay, 0) * 16000), Fraction(1, 16000)
        container.mux(track.encode(frame))
        container.mux(track.encode())
    (clip,), _ = cut_clips(recording(path), lambda *_: make.landmarks(30), keep_all=False)
    expected = round((0.5 - max(-delay, 0)) * 16000)
    assert abs(int(np.abs(clip.samples).argmax()) - expected - 20) <= 40
    assert len(clip.samples) == 30 * 640


def test_written_files_hold_the_clip(tmp_path, make):
    path = make.mp4(tmp_path / "a.mp4", *make.content(1))
    (clip,), _ = cut_clips(recording(path), lambda *_: make.landmarks(25), keep_all=False)
    write_clip(clip, audio=tmp_path / "d e" / "u.flac", video=tmp_path / "d e" / "u.mkv")
    samples, rate = soundfile.read(tmp_path / "d e" / "u.flac", dtype="float32")
    assert rate == 16000 and np.abs(samples - clip.samples).max() < 1e-4
    assert np.abs(read_video(tmp_path / "d e" / "u.mkv").astype(int) - clip.frames).mean() < 2
    assert len(list((tmp_path / "d e").iterdir())) == 2


def test_a_stream_alone(tmp_path, make):
    path = str(make.mp4(tmp_path / "a.mp4", *make.content(1, frames=20)))
    segments = (("a", 0, 5), ("b", 5, None))
    sound = Recording("rec", path, None, "face", segments)
    pieces, notes = cut_clips(sound, lambda *_: None, keep_all=False)
    assert [len(p.samples) for p in pieces] == [3200, 9600] and pieces[0].frames is None
    write_clip(pieces[0], audio=tmp_path / "d" / "u.flac")
    pictures = Recording("rec", None, path, "face", segments)
    pieces, more = cut_clips(pictures, lambda *_: make.landmarks(20), keep_all=False)
    assert [len(p.frames) for p in pieces] == [5, 15] and pieces[0].samples is None
    write_clip(pieces[0], video=tmp_path / "d" / "u.mkv")
    assert notes == more == [] and len(list((tmp_path / "d").iterdir())) == 2
    with pytest.raises(ClipError, match=r"begins at 2\.00 s, the clip ends at 0\.80 s"):
        cut_clips(
            Recording("rec", path, None, "face", (("c", 50, None),)), lambda *_: None, keep_all=True
        )


def test_a_clip_is_decoded_once(tmp_path, make, monkeypatch):
    path = make.mp4(tmp_path / "a.mp4", *make.content(1, frames=20))
    passes = []
    read = media.read_pictures
    monkeypatch.setattr(media, "read_pictures", lambda path: passes.append(path) or read(path))
    points = make.landmarks(20)[0]
    (clip,), _ = cut_clips(recording(path), DetectedLandmarks(lambda _: points), keep_all=False)
    assert passes == [str(path)] and len(clip.frames) == 20
    # A video that would take too much memory is decoded again.
    video = media.Video(path, max_bytes=19 * 160 * 160)
    indices = [[p.index for p in video] for _ in range(2)]
    assert indices == [list(range(20))] * 2
    assert len(passes) == 3


def test_mouth_crops_of_another_size_are_refused(tmp_path, make):
    path = make.mp4(tmp_path / "a.mp4", *make.content(1))
    with pytest.raises(ClipError, match="pictures of 160×160 instead of 96×96 mouth crops"):
        cut_clips(recording(path, kind="mouth"), lambda *_: None, keep_all=True)
