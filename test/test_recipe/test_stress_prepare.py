"""Two hundred clips, ten of them broken in ten ways, through the LRS3 recipe's preparation."""

import os
import pickle
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from talking_face.corpus import Settings, Size, make
from talking_face.difficulty import Difficulty

ROOT = Path(__file__).resolve().parents[2]
NUM_CLIPS = 200
SIZE = Size(
    pretrain=16, train=144, valid=10, test=42, long=4, joined=4, pretrainers=4, speakers=(8, 3, 4)
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


def truncate(clip):
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])


def empty(clip):
    clip.write_bytes(b"")


def no_media(clip):
    clip.write_text("<html>404 Not Found</html>")


def keep(clip, kind):
    """Keep one stream of a clip."""
    source = clip.rename(clip.with_name("source"))
    with av.open(str(source)) as given, av.open(str(clip), "w", format="mp4") as made:
        (stream,) = (s for s in given.streams if s.type == kind)
        copy = made.add_stream_from_template(stream)
        for packet in given.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                made.mux(packet)
    source.unlink()


def no_audio(clip):
    keep(clip, "video")


def no_video(clip):
    keep(clip, "audio")


def long_audio(clip):
    with av.open(str(clip)) as given:
        pictures = list(given.decode(video=0))
    samples = np.random.default_rng(0).normal(0, 0.1, len(pictures) * 640 + 48000)
    with av.open(str(clip), "w", format="mp4") as made:
        video = made.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = pictures[0].width, pictures[0].height, "yuv420p"
        audio = made.add_stream("aac", rate=16000, layout="mono")
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture.to_ndarray(format="gray"), format="gray")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            made.mux(video.encode(frame))
        made.mux(video.encode())
        frame = av.AudioFrame.from_ndarray(
            samples[None].astype(np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
        made.mux(audio.encode(frame))
        made.mux(audio.encode())


def other_landmarks(clip):
    points = np.load(clip.with_suffix(".npy"))
    np.save(clip.with_suffix(".npy"), np.concatenate([points, points]))


def no_face(clip):
    points = np.load(clip.with_suffix(".npy"))
    np.save(clip.with_suffix(".npy"), np.full_like(points, np.nan))


def code_in_landmarks(clip):
    clip.with_suffix(".npy").unlink()
    clip.with_suffix(".pkl").write_bytes(pickle.dumps(os.system))


def no_text(clip):
    clip.with_suffix(".txt").unlink()


CAUSES = {
    truncate: "damaged, or not a media file",
    empty: "file of 0 bytes",
    no_media: "damaged, or not a media file",
    no_audio: "has no audio stream",
    no_video: "has no video stream",
    long_audio: "longer than video",
    other_landmarks: "frames but landmarks for",
    no_face: "no face found",
    code_in_landmarks: "not an array",
    no_text: "each clip needs its text file beside it",
}


def test_all_but_the_broken_ones_are_prepared(tmp_path):
    egs2 = tmp_path / "a clone" / "egs2"
    ignored = shutil.ignore_patterns("data", "dump", "exp", "downloads")
    shutil.copytree(ROOT / "egs2", egs2, symlinks=True, ignore=ignored)
    env = {**os.environ, "ESPNET_SMOP_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    corpus = tmp_path / "the corpus"
    make(corpus, Settings(size=SIZE, seed=0, difficulty=Difficulty()), jobs=2)
    clips = sorted(corpus.glob("*/*/*.mp4"))
    assert len(clips) == NUM_CLIPS
    training = [c for c in clips if c.parts[-3] == "trainval"]
    broken = dict(zip(CAUSES, training[:: len(training) // len(CAUSES)], strict=False))
    assert len(broken) == len(CAUSES) == 10
    for damage, clip in broken.items():
        damage(clip)

    recipe = egs2 / "lrs3/avsr_smop1"
    done = subprocess.run(
        ["./run.sh", "--stop_stage", "4", "--nj", "2"],
        cwd=recipe, env={**env, "LRS3": str(corpus)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]

    reports = [
        (recipe / "data/train/prepare.txt").read_text(),
        *((recipe / f"dump/raw/org/{s}/report.txt").read_text() for s in ("train", "valid")),
    ]
    lines = [
        line
        for report in reports
        for line in report.splitlines()
        if line.startswith(("broken: ", "left out: "))
    ]
    for damage, clip in broken.items():
        (line,) = [line for line in lines if str(clip.with_suffix("")) in line]
        assert CAUSES[damage] in line
        print(f"{damage.__name__}: {line.replace(str(corpus), 'LRS3')}")
    assert len(lines) == len(broken)

    spoilt = {f"{clip.parts[-2]}_{clip.stem}" for clip in broken.values()}
    prepared = {}
    for part in ("org/train", "org/valid", "test"):
        table = (recipe / "dump/raw" / part / "wav.scp").read_text().splitlines()
        prepared.update(line.split(" ", 1) for line in table)
    whole = {f"{c.parts[-2]}_{c.stem}" for c in clips if c.parts[-3] != "pretrain"} - spoilt
    assert whole == {u for u in prepared if "_pretrain_" not in u}
    assert all(Path(recipe, path).stat().st_size > 0 for path in prepared.values())
    print(f"{len(clips)} clips, {len(broken)} broken, {len(prepared)} utterances prepared")
