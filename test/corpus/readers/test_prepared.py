"""The prepared forms, made here as their preparations write them."""

import shutil

import numpy as np
import pytest
import soundfile

from espnet_smop.bin import data_dir, prepare_corpus
from espnet_smop.corpus.readers import READERS, corpus_dir
from espnet_smop.corpus.readers.any_lrs3 import AnyLRS3Reader
from espnet_smop.corpus.readers.auto_avsr import AutoAVSRReader
from espnet_smop.corpus.utterance import CorpusError, Problem
from espnet_smop.fileio.table import read_table
from espnet_smop.fileio.video import read_video

CLIPS = {
    "pretrain/aa/00001_00": "SO WE {GO}",
    "pretrain/aa/00001_01": "ON AND ON",
    "trainval/aa/50001": "HELLO THERE",
    "trainval/bb/50001": "GOOD MORNING 2 U",
    "test/tt/00001": "THE END",
}


def mouths(make, seed):
    frames, audio = make.content(seed, frames=10)
    return frames[:, :96, :96], audio


@pytest.fixture
def auto_avsr(tmp_path, make):
    root = tmp_path / "auto avsr"
    rows = {"train": [], "test": []}
    for seed, (name, text) in enumerate(CLIPS.items()):
        frames, audio = mouths(make, seed)
        clip = root / "lrs3" / "lrs3_video_seg16s" / f"{name}.mp4"
        make.mp4(clip, frames)
        soundfile.write(clip.with_suffix(".wav"), audio, 16000)
        text_file = root / "lrs3" / "lrs3_text_seg16s" / f"{name}.txt"
        text_file.parent.mkdir(parents=True, exist_ok=True)
        text_file.write_text(text.replace("{", "").replace("}", ""))
        subset = "test" if name.startswith("test") else "train"
        rows[subset].append(f"lrs3,lrs3_video_seg16s/{name}.mp4,10,12 7 99")
    (root / "labels").mkdir()
    for subset, lines in rows.items():
        path = root / "labels" / f"lrs3_{subset}_transcript_lengths_seg16s.csv"
        path.write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def av_hubert(tmp_path, make):
    root = tmp_path / "av hubert"
    sets = {"train": [], "valid": [], "test": []}
    for seed, (name, text) in enumerate(CLIPS.items()):
        name = name.replace("pretrain/", "short-pretrain/")
        frames, audio = mouths(make, seed)
        make.mp4(root / "video" / f"{name}.mp4", frames)
        sound = root / "audio" / f"{name}.wav"
        sound.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(sound, audio, 16000)
        subset = "test" if "test" in name else "valid" if "/bb/" in name else "train"
        row = [name, f"/elsewhere/video/{name}.mp4", f"/elsewhere/audio/{name}.wav", "10", "6400"]
        sets[subset].append(("\t".join(row), text.lower()))
    (root / "433h_data").mkdir()
    for subset, lines in sets.items():
        manifest = root / "433h_data" / f"{subset}.tsv"
        manifest.write_text("/\n" + "".join(f"{row}\n" for row, _ in lines))
        manifest.with_suffix(".wrd").write_text("".join(f"{text}\n" for _, text in lines))
    return root


@pytest.mark.parametrize("form", ["auto_avsr", "av_hubert"])
def test_prepared_forms(form, request, tmp_path, capsys):
    root = request.getfixturevalue(form)
    data, dump = tmp_path / "data", tmp_path / "dump"
    valid = [] if form == "av_hubert" else ["--valid_list", str(tmp_path / "valid")]
    (tmp_path / "valid").write_text("trainval/bb/50001\n")
    prepare_corpus.main(["any_lrs3", "--root", str(root), "--out_dir", str(data), *valid])
    said = capsys.readouterr().out
    assert {"auto_avsr": "auto_avsr's prepared tree", "av_hubert": "AV-HuBERT's"}[form] in said
    texts = {n: read_table(data / n / "text") for n in ("train", "valid", "test")}
    assert sorted(texts["train"].values()) == ["hello there", "on and on", "so we go"]
    assert texts["valid"] == {"bb_50001": "good morning 2 u"}
    assert texts["test"] == {"tt_00001": "the end"}

    where = ["--data_dir", str(data / "train"), "--out_dir", str(dump)]
    data_dir.main(["format", *where])
    data_dir.main(["combine", *where])
    videos = read_table(dump / "video.scp")
    assert sorted(videos) == sorted(texts["train"])
    source = read_table(data / "train/video.scp")
    name = next(iter(videos))
    # Already crops: passed on as they are.
    original = read_video(source[name]).astype(int)
    assert np.abs(read_video(videos[name]) - original).mean() < 4

    only = READERS[form](train_parts=["trainval"]).read(root)
    assert {u.name for u in only.train} <= {"trainval/aa/50001", "trainval/bb/50001"}


def test_extra_training_corpus(lrs3, av_hubert, tmp_path):
    arguments = ["any_lrs3", "--root", str(lrs3), "--out_dir", str(tmp_path / "d")]
    with pytest.raises(CorpusError, match=r"both give the id (aa|bb)_50001; leave one out"):
        prepare_corpus.main([*arguments, "--extra_train", str(av_hubert)])
    shutil.rmtree(lrs3 / "trainval" / "aa")
    shutil.rmtree(lrs3 / "trainval" / "bb")
    prepare_corpus.main([*arguments, "--extra_train", str(av_hubert)])
    kinds = read_table(tmp_path / "d/train/reco2kind")
    mouths = {recording for recording, kind in kinds.items() if kind == "mouth"}
    assert mouths == {"aa_pretrain_00001_00", "aa_pretrain_00001_01", "aa_50001", "bb_50001"}
    assert set(read_table(tmp_path / "d/test/text")) == {"tt_00001", "tt_00002"}


def test_raw_is_recognised(lrs3):
    corpus = AnyLRS3Reader(train_parts=["trainval"]).read(lrs3)
    assert "as distributed" in corpus.form and len(corpus.train) == 6


def test_missing_files_are_reported(auto_avsr, av_hubert):
    (auto_avsr / "lrs3/lrs3_text_seg16s/trainval/aa/50001.txt").unlink()
    (auto_avsr / "lrs3/lrs3_video_seg16s/trainval/bb/50001.mp4").unlink()
    corpus = AnyLRS3Reader().read(auto_avsr)
    assert len(corpus.train) == 2 and len(corpus.train_problems) == 2
    (av_hubert / "audio/test/tt/00001.wav").unlink()
    corpus = AnyLRS3Reader().read(av_hubert)
    assert corpus.test_problems == [Problem("test/tt/00001", "no such audio file")]


def test_label_files_as_they_are_passed_on(auto_avsr):
    """Test labels of another length, an addition to a name, and a part of train by itself."""
    labels, stem = auto_avsr / "labels", "transcript_lengths_seg"
    (labels / f"lrs3_test_{stem}16s.csv").rename(labels / f"lrs3_test_{stem}24s_LLM_lowercase.csv")
    train = labels / f"lrs3_train_{stem}16s.csv"
    part = [line for line in train.read_text().splitlines() if "trainval" in line]
    (labels / f"lrs3_30h_train_{stem}16s_LLM_lowercase_12.csv").write_text("\n".join(part) + "\n")
    (labels / f"lrs3_train_{stem}16s_LLM_lowercase_25.csv").write_text("")
    corpus = AnyLRS3Reader().read(auto_avsr)
    assert sorted(u.name for u in corpus.train) == sorted(n for n in CLIPS if "test" not in n)
    assert [u.text for u in corpus.test] == ["the end"]
    train.rename(labels / f"lrs3_train_{stem}16s.0.4.csv")
    with pytest.raises(CorpusError, match=r"keep only one of lrs3_train_.*0\.4\.csv, .*_25\.csv$"):
        AnyLRS3Reader().read(auto_avsr)


def test_a_prepared_tree_without_its_test_part(auto_avsr, av_hubert, tmp_path):
    (auto_avsr / "labels/lrs3_test_transcript_lengths_seg16s.csv").unlink()
    (av_hubert / "433h_data/test.tsv").unlink()
    for root in (auto_avsr, av_hubert):
        with pytest.raises(CorpusError, match=f"{root}: holds no test clips"):
            where = ["--root", str(root), "--out_dir", str(tmp_path / "data")]
            prepare_corpus.main(["any_lrs3", *where])
    assert not (tmp_path / "data").exists()


def test_a_corpus_in_the_home_directory_or_from_here(lrs3, monkeypatch):
    monkeypatch.setenv("HOME", str(lrs3.parent))
    assert corpus_dir(f"~/{lrs3.name}") == lrs3
    monkeypatch.chdir(lrs3)
    with pytest.raises(CorpusError, match=f"{lrs3}/lrs3: no such directory; correct its path"):
        corpus_dir("lrs3")


def test_form_errors(auto_avsr, av_hubert):
    with pytest.raises(CorpusError, match=r"lengths has segments of \[16, 24\] s, none of 20 s"):
        labels = auto_avsr / "labels"
        (labels / "lrs3_train_transcript_lengths_seg24s.csv").write_text("")
        AnyLRS3Reader(max_seconds=20).read(auto_avsr)
    with open(av_hubert / "433h_data/train.wrd", "a") as file:
        file.write("one more\n")
    with pytest.raises(CorpusError, match=r"train.tsv lists 3 clips but train.wrd has 4 lines"):
        AnyLRS3Reader().read(av_hubert)


@pytest.mark.parametrize(
    ("dataset", "path"),
    [
        ("lrs3", "/lrs3_video_seg16s/trainval/s/1.mp4"),
        ("lrs3", "lrs3_video_seg16s/../../s/1.mp4"),
        ("/lrs3", "lrs3_video_seg16s/trainval/s/1.mp4"),
    ],
)
def test_labels_name_only_files_of_the_tree(tmp_path, dataset, path):
    labels = tmp_path / "labels" / "lrs3_train_transcript_lengths_seg16s.csv"
    labels.parent.mkdir()
    labels.write_text(f'{dataset},{path},25,"1 2 3"\n')
    with pytest.raises(CorpusError, match=r"csv:1: expected dataset,path,frames,tokens"):
        AutoAVSRReader().read(tmp_path)
