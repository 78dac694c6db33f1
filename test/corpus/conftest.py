"""Clips and an LRS3 look-alike made on the spot."""

from fractions import Fraction

import av
import numpy as np
import pytest


def write_mp4(path, frames=None, samples=None, *, rate=25, sample_rate=16000):
    """Write grey frames (T, H, W) and float samples (N,) as H.264 and AAC."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = audio = None
        if frames is not None:
            video = container.add_stream("libx264", rate=rate, options={"crf": "10"})
            video.height, video.width = frames.shape[1:]
            video.pix_fmt = "yuv420p"
        if samples is not None:
            audio = container.add_stream("aac", rate=sample_rate, layout="mono")
        if video:
            for picture in frames:
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
            container.mux(video.encode())
        if audio:
            frame = av.AudioFrame.from_ndarray(
                samples[None].astype(np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate = sample_rate
            # With times the encoder marks its priming samples, so that readers skip them.
            frame.pts, frame.time_base = 0, Fraction(1, sample_rate)
            container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


def face_landmarks(frames, *, mouth=(100.0, 120.0), eyes=40.0, angle=0.0, motion=0.0):
    """Return (frames, 68, 2) landmarks of a face whose mouth's centre lies at `mouth`."""
    random = np.random.default_rng(1)
    points = random.normal(0, 10, (68, 2))
    # Eyes, nose and mouth as they lie relative to the mouth, in units of the eyes' distance.
    points[36:42] = np.array([-0.5, -1.15]) + random.normal(0, 0.02, (6, 2))
    points[42:48] = np.array([0.5, -1.15]) + random.normal(0, 0.02, (6, 2))
    points[36], points[39] = (-0.68, -1.17), (-0.3, -1.15)
    points[42], points[45] = (0.3, -1.15), (0.69, -1.17)
    points[33] = (0, -0.38)
    lips = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    points[48:68] = np.stack([0.4 * np.cos(lips), 0.2 * np.sin(lips)], axis=1)
    points *= eyes
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    path = np.stack([motion * np.arange(frames), np.zeros(frames)], axis=1)
    return (points @ turn.T)[None] + np.array(mouth) + path[:, None]


def clip_content(seed, frames=25, size=160):
    """Return smooth random frames and a tone, different for every seed."""
    random = np.random.default_rng(seed)
    small = random.integers(40, 216, (size // 16, size // 16))
    picture = np.kron(small, np.ones((16, 16))).astype(np.uint8)
    video = np.stack([np.roll(picture, t, axis=1) for t in range(frames)])
    time = np.arange(frames * 640) / 16000
    audio = 0.3 * np.sin(2 * np.pi * (200 + 50 * seed) * time).astype(np.float32)
    return video, audio


def write_clip(folder, name, text, *, seed=0, frames=25, words=None, landmarks=True):
    """Write a clip of LRS3's form with its text file and landmarks."""
    video, audio = clip_content(seed, frames)
    path = write_mp4(folder / f"{name}.mp4", video, audio)
    lines = [f"Text:  {text}", "Conf:  3"]
    if words:
        lines += ["", "WORD START END ASDSCORE"]
        lines += [f"{w} {s:.2f} {e:.2f} 1.0" for w, s, e in words]
    path.with_suffix(".txt").write_text("\n".join(lines) + "\n")
    if landmarks:
        np.save(path.with_suffix(".npy"), face_landmarks(frames).astype(np.float32))
    return path


@pytest.fixture
def lrs3(tmp_path):
    """Make an LRS3 look-alike: three training speakers, one pretrain clip to be cut, a test."""
    root = tmp_path / "the corpus"
    for number, speaker in enumerate(["aa", "bb", "cc"]):
        for clip in range(2):
            write_clip(
                root / "trainval" / speaker,
                f"5000{clip}",
                "HELLO {WORLD} 7",
                seed=number * 2 + clip,
            )
    write_clip(root / "test" / "tt", "00001", "GOOD MORNING", seed=7)
    write_clip(root / "test" / "tt", "00002", "GOOD NIGHT", seed=8)
    words = [(f"W{i}", 0.1 + 0.4 * i, 0.4 + 0.4 * i) for i in range(9)]
    text = " ".join(w for w, _, _ in words)
    write_clip(root / "pretrain" / "dd", "00001", text, seed=9, frames=100, words=words)
    return root


@pytest.fixture
def make():
    """Give tests the makers above."""

    class Make:
        mp4 = staticmethod(write_mp4)
        landmarks = staticmethod(face_landmarks)
        content = staticmethod(clip_content)
        clip = staticmethod(write_clip)

    return Make
