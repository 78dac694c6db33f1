import csv
import json
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from talking_face.corpus import Settings, Size, make
from talking_face.difficulty import Difficulty

TINY = Size(
    pretrain=4, train=2, valid=2, test=2, long=1, joined=3, pretrainers=2, speakers=(1, 1, 1)
)


def corpus(form: str, out: Path) -> tuple[Path, list[dict]]:
    make(out, Settings(size=TINY, seed=3, difficulty=Difficulty(), form=form), jobs=1)
    return out, [json.loads(line) for line in (out / "truth.jsonl").read_text().splitlines()]


def check_media(video: Path, audio: Path, frames: int) -> None:
    with av.open(str(video)) as container:
        pictures = [f.to_ndarray(format="gray") for f in container.decode(video=0)]
    assert np.shape(pictures) == (frames, 96, 96)
    with wave.open(str(audio)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        assert file.getnframes() == frames * 640
    assert np.std(pictures) > 5  # a mouth, not an empty picture


@pytest.fixture(scope="module")
def auto_avsr(tmp_path_factory) -> tuple[Path, list[dict]]:
    return corpus("auto_avsr", tmp_path_factory.mktemp("auto_avsr"))


@pytest.fixture(scope="module")
def avhubert(tmp_path_factory) -> tuple[Path, list[dict]]:
    return corpus("avhubert", tmp_path_factory.mktemp("avhubert"))


def test_auto_avsr_lists_every_clip_once(auto_avsr):
    out, truth = auto_avsr
    rows = []
    for subset in ("train", "test"):
        path = out / f"labels/lrs3_{subset}_transcript_lengths_seg16s.csv"
        with path.open() as file:
            rows += [(subset, *row) for row in csv.reader(file)]
    assert len(rows) == len(truth)
    for subset, dataset, path, frames, ids in rows:
        assert dataset == "lrs3"
        video = out / dataset / path
        check_media(video, video.with_suffix(".wav"), int(frames))
        text = Path(str(video).replace("_video_", "_text_")).with_suffix(".txt").read_text()
        assert len(ids.split()) == len(text)
        part, speaker, clip = path.removesuffix(".mp4").split("/")[1:]
        name = f"{part}/{speaker}/{clip.removesuffix('_00')}"
        (row,) = [row for row in truth if row["clip"] == name]
        assert text == row["text"].upper()
        assert (subset == "test") == (row["split"] == "test")
        assert clip.endswith("_00") == (part == "pretrain")


def test_avhubert_lists_every_clip(avhubert):
    out, truth = avhubert
    seen = []
    for subset in ("train", "valid", "test"):
        root, *lines = (out / f"433h_data/{subset}.tsv").read_text().splitlines()
        texts = (out / f"433h_data/{subset}.wrd").read_text().splitlines()
        assert root == "/"
        for line, text in zip(lines, texts, strict=True):
            name, video, audio, frames, samples = line.split("\t")
            assert int(samples) == 640 * int(frames)
            check_media(Path(video), Path(audio), int(frames))
            clip = name.replace("short-pretrain", "pretrain")
            (row,) = [row for row in truth if row["clip"] == clip]
            assert (row["text"], row["split"]) == (text, subset)
            seen.append(name)
    assert sorted(seen) == sorted((out / "file.list").read_text().split())
    labels = (out / "label.list").read_text().splitlines()
    assert labels == [row["text"].upper() for row in truth]
    small = (out / "30h_data/train.tsv").read_text().splitlines()[1:]
    assert len(small) == sum(row["clip"].startswith("trainval/") for row in truth) - TINY.valid


def test_forms_hold_the_same_utterances(auto_avsr, avhubert):
    assert auto_avsr[1] == avhubert[1]
