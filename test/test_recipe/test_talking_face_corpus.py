import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

from talking_face import grammar
from talking_face.corpus import DEFAULT, SMOKE, Settings, Size, make, make_clip, plan, size_of
from talking_face.difficulty import Difficulty

TINY = Size(
    pretrain=4, train=2, valid=2, test=2, long=1, joined=3, pretrainers=2, speakers=(1, 1, 1)
)
SETTINGS = Settings(size=TINY, seed=3, difficulty=Difficulty())
EGS2 = Path(__file__).parents[2] / "egs2"
COMMAND = [sys.executable, str(EGS2 / "mini_lrs3/avsr_smop1/local/make_corpus.py")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(EGS2 / "synthesis")}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("mini corpus") / "LRS3"
    make(out, SETTINGS, jobs=1)
    return out


@pytest.fixture(scope="module")
def truth(corpus) -> list[dict]:
    return [json.loads(line) for line in (corpus / "truth.jsonl").read_text().splitlines()]


def pictures(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 25
        return np.stack([f.to_ndarray(format="gray") for f in container.decode(video=0)])


def sound(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert (stream.rate, stream.channels) == (16000, 1)
        return np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])


@pytest.mark.parametrize("name", ["default", "smoke", "pretraining_smoke", "100"])
def test_plan_keeps_splits_apart(name):
    size = size_of(name)
    clips = plan(Settings(size=size, seed=0, difficulty=Difficulty()))
    texts = {split: [t for c in clips if c.split == split for t in c.texts] for split in
             ("train", "valid", "test")}  # fmt: skip
    assert {k: len(v) for k, v in texts.items()} == {
        "train": size.pretrain + size.train, "valid": size.valid, "test": size.test,
    }  # fmt: skip
    assert len({t for said in texts.values() for t in said}) == sum(map(len, texts.values()))
    people = [{c.name.split("/")[1] for c in clips if c.split == split} for split in texts]
    assert sum(map(len, people)) == len(set().union(*people))
    assert len({c.name for c in clips}) == len(clips)
    assert all(c.name.startswith("test/") == (c.split == "test") for c in clips)


def test_sizes():
    assert DEFAULT.test >= 600
    assert DEFAULT.pretrain == 0
    assert size_of(str(DEFAULT.train + DEFAULT.valid)) == DEFAULT
    with pytest.raises(ValueError, match="default, smoke, pretraining, .* or a number"):
        size_of("large")


def test_base_models_get_sentences_that_no_other_corpus_has():
    reserved = plan(Settings(size=size_of("pretraining_smoke"), seed=1, difficulty=Difficulty()))
    reserved = {t for clip in reserved if clip.name.startswith("pretrain/") for t in clip.texts}
    assert len(reserved) == 40 and all(map(grammar.is_for_pretraining, reserved))
    others = plan(Settings(size=DEFAULT, seed=1, difficulty=Difficulty()))
    assert not any(grammar.is_for_pretraining(t) for clip in others for t in clip.texts)


def test_tree_is_that_of_lrs3(corpus, truth):
    files = sorted(str(p.relative_to(corpus)) for p in corpus.rglob("*") if p.is_file())
    clips = [row["clip"] + end for row in truth for end in (".mp4", ".npy", ".txt")]
    assert files == sorted([*clips, ".done", "settings.json", "truth.jsonl", "valid.id"])
    listed = (corpus / "valid.id").read_text().split()
    assert listed == [row["clip"] for row in truth if row["split"] == "valid"]
    assert all(name.startswith("trainval/") for name in listed)


def test_text_files_are_as_lrs3_writes_them(corpus, truth):
    for row in truth:
        lines = (corpus / f"{row['clip']}.txt").read_text().splitlines()
        assert lines[0] == f"Text:  {row['text'].upper()}"
        assert lines[1].startswith("Conf:  ") and lines[1][7:].isdigit()
        if not row["clip"].startswith("pretrain/"):
            assert len(lines) == 2
            continue
        assert lines[2:4] == ["", "WORD START END ASDSCORE"]
        table = [line.split(" ") for line in lines[4:]]
        assert [r[0] for r in table] == row["text"].upper().split()
        times = np.array([r[1:3] for r in table], float)
        np.testing.assert_allclose(times, [w[1:] for w in row["words"]], atol=0.0051)
        assert (np.diff(times.ravel()) >= 0).all()
        assert times[-1, 1] <= row["frames"] / 25


def test_picture_sound_and_landmarks_are_equally_long(corpus, truth):
    for row in truth:
        clip = corpus / row["clip"]
        landmarks = np.load(clip.with_suffix(".npy"))
        assert landmarks.shape == (row["frames"], 68, 2) and landmarks.dtype == np.float32
        assert len(pictures(clip.with_suffix(".mp4"))) == row["frames"]
        assert len(sound(clip.with_suffix(".mp4"))) == row["frames"] * 640
        last = row["phones"][-1][2]
        assert 0.1 < row["frames"] / 25 - last < 0.35
        if row["split"] == "test":
            assert 1 < row["frames"] / 25 < 3.5


def test_sound_is_where_the_truth_says(corpus, truth):
    for row in truth:
        level = np.abs(sound((corpus / row["clip"]).with_suffix(".mp4")))
        first, last = row["phones"][0][1], row["phones"][-1][2]
        loud = np.flatnonzero(level > 0.15 * level.max()) / 16000
        assert first - 0.02 < loud[0] < first + 0.2
        assert last - 0.25 < loud[-1] < last + 0.1


def test_lips_are_closed_at_bilabials_and_open_at_vowels(corpus, truth):
    closed, opened = [], []
    for row in truth:
        points = np.load(corpus / f"{row['clip']}.npy")
        scale = np.linalg.norm(points[:, 45] - points[:, 36], axis=1)
        gap = np.linalg.norm(points[:, 66] - points[:, 62], axis=1) / scale
        for label, start, end in row["phones"]:
            # The lips lead the sound by up to 40 ms, give or take the jitter.
            frames = gap[max(int((start - 0.08) * 25), 0) : int(end * 25) + 2]
            if label in ("p", "b", "m"):
                closed.append(frames.min())
            elif label.startswith(("a", "A", "0")):
                opened.append(frames.max())
    assert len(closed) > 10 and len(opened) > 10
    assert max(closed) < 0.03
    assert np.median(opened) > 0.1


def test_corpus_does_not_depend_on_the_number_of_processes(corpus, tmp_path):
    again = tmp_path / "again"
    make(again, SETTINGS, jobs=2)
    for path in sorted(p for p in corpus.rglob("*") if p.is_file()):
        other = again / path.relative_to(corpus)
        if path.suffix == ".mp4":
            np.testing.assert_array_equal(pictures(path), pictures(other))
            np.testing.assert_array_equal(sound(path), sound(other))
        else:
            assert path.read_bytes() == other.read_bytes()


def test_complete_clips_are_not_made_again(corpus, tmp_path):
    out = tmp_path / "out"
    first = plan(SETTINGS)[0]
    make_clip(out, SETTINGS, first)
    (out / "trainval/s29").mkdir(parents=True)
    (out / "trainval/s29/50001.mp4.tmp").write_bytes(b"what a kill leaves")
    made = (out / f"{first.name}.mp4").stat().st_mtime_ns
    make(out, SETTINGS, jobs=1)
    assert (out / f"{first.name}.mp4").stat().st_mtime_ns == made
    names = {str(p.relative_to(out)) for p in out.rglob("*")}
    assert names == {str(p.relative_to(corpus)) for p in corpus.rglob("*")}


def test_other_settings_are_refused(corpus, capfd):
    def run(*options: str) -> subprocess.CompletedProcess:
        command = [*COMMAND, "--out", str(corpus), *options]
        return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)

    refused = run("--size", "smoke")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "other settings" in refused.stderr and str(corpus) in refused.stderr
    make(corpus, SETTINGS, jobs=1)
    assert "complete" in capfd.readouterr().out


@pytest.mark.slow
def test_killed_run_is_completed(tmp_path):
    out = tmp_path / "out"
    command = [*COMMAND, "--out", str(out), "--size", "smoke"]
    process = subprocess.Popen([*command, "--nj", "2"], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(out.glob("*/*/*.npy"))) < 6 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    planned = {c.name for c in plan(Settings(size=SMOKE, seed=0, difficulty=Difficulty()))}
    made = {p: p.read_bytes() for p in out.glob("*/*/*.txt")}
    assert 6 <= len(made) < len(planned)
    while any(_runs(int(pid)) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_runs(int(pid)) for pid in workers)
    subprocess.run([*command, "--nj", "1"], env=ENVIRONMENT, check=True)
    truth = [json.loads(line) for line in (out / "truth.jsonl").read_text().splitlines()]
    assert len(truth) == len(planned) and {row["clip"] for row in truth} == planned
    assert all(path.read_bytes() == text for path, text in made.items())
    assert not list(out.rglob("*.tmp"))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
