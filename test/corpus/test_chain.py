"""From LRS3's directory to what training reads, by the commands that the recipe calls."""

import numpy as np
import pytest
import soundfile

from espnet_smop.bin import (
    combine_av,
    filter_utts,
    fix_data_dir,
    format_av,
    make_babble,
    prepare_lrs3,
)
from espnet_smop.corpus.datadir import read_table
from espnet_smop.fileio.video import read_video


def prepare(root, data, *more):
    prepare_lrs3.main(["--lrs3", str(root), "--out_dir", str(data), "--max_seconds", "2", *more])


def format_set(data, dump, *more, num_jobs=1):
    for job in range(1, num_jobs + 1):
        jobs = ["--num_jobs", str(num_jobs), "--job", str(job)]
        where = ["--data_dir", str(data), "--out_dir", str(dump)]
        format_av.main([*where, *jobs, "--landmarks", "files", *more])


def combine(data, dump, *more):
    combine_av.main(["--data_dir", str(data), "--out_dir", str(dump), *more])


def test_from_corpus_to_dump(lrs3, tmp_path):
    data, dump = tmp_path / "data", tmp_path / "dump"
    prepare(lrs3, data)
    sets = {name: read_table(data / name / "text") for name in ("train", "valid", "test")}
    assert sets["test"] == {"tt_00001": "good morning", "tt_00002": "good night"}
    train, valid = read_table(data / "train/utt2spk"), read_table(data / "valid/utt2spk")
    assert not set(train.values()) & set(valid.values())
    assert len(valid) == 2  # one speaker
    pieces = {u: t for u, t in sets["train"].items() if u.startswith("dd_pretrain_00001_")}
    words = " ".join(pieces[u] for u in sorted(pieces))
    assert words == " ".join(f"w{i}" for i in range(9))
    assert fix_data_dir.main(["--check", *(str(data / n) for n in sets)]) == 0

    format_set(data / "train", dump / "train", num_jobs=2)
    combine(data / "train", dump / "train")
    wav, video = read_table(dump / "train/wav.scp"), read_table(dump / "train/video.scp")
    frames = read_table(dump / "train/utt2num_frames")
    samples = read_table(dump / "train/utt2num_samples")
    assert set(wav) == set(video) == set(frames) == set(sets["train"])
    for utterance in wav:
        audio, rate = soundfile.read(wav[utterance])
        pictures = read_video(video[utterance])
        assert rate == 16000 and pictures.shape[1:] == (96, 96)
        assert len(pictures) == int(frames[utterance])
        assert len(audio) == int(samples[utterance]) == 640 * len(pictures)
        assert len(pictures) <= 50
    assert fix_data_dir.main(["--check", str(dump / "train")]) == 0

    filter_utts.main(
        ["--in_dir", str(dump / "train"), "--out_dir", str(dump / "kept"), "--max_seconds", "1.5"]
    )
    dropped = read_table(dump / "kept/dropped.txt")
    assert set(dropped) | set(read_table(dump / "kept/text")) == set(wav)
    assert dropped and all("longer than 1.5 s" in why for why in dropped.values())

    babble = tmp_path / "noise" / "babble.wav"
    arguments = ["--data_dir", str(dump / "train"), "--num_utts", "4", "--seconds", "3"]
    make_babble.main([*arguments, "--out", str(babble)])
    first = babble.read_bytes()
    noise, rate = soundfile.read(babble)
    assert rate == 16000 and len(noise) == 48000 and 0.8 < np.abs(noise).max() < 1
    make_babble.main([*arguments, "--out", str(babble)])
    assert babble.read_bytes() == first
    make_babble.main([*arguments, "--out", str(babble), "--seed", "1"])
    assert babble.read_bytes() != first


def test_resume_makes_only_what_is_missing(lrs3, tmp_path):
    data, dump = tmp_path / "data", tmp_path / "dump"
    prepare(lrs3, data)
    format_set(data / "train", dump)
    combine(data / "train", dump)
    files = {p: p.stat().st_mtime_ns for p in (dump / "data").rglob("*.*")}
    victim = sorted(files)[0]
    victim.unlink()
    # The state that a killed job leaves: an unfinished record and an unfinished file.
    with open(dump / "records/1.jsonl", "a") as log:
        log.write('{"utterance": "aa_5')
    victim.with_name(".part-x.flac").write_bytes(b"half")
    with pytest.raises(SystemExit, match="1 utterances are not formatted yet"):
        combine(data / "train", dump)
    format_set(data / "train", dump, num_jobs=3)
    combine(data / "train", dump)
    partner = {p for p in files if p.stem == victim.stem}
    assert all(p.stat().st_mtime_ns == t for p, t in files.items() if p not in partner)
    assert victim.is_file()
    # A source that changed is made anew.
    source = lrs3 / "trainval" / victim.parent.name / f"{victim.stem.split('_')[1]}.mp4"
    if source.is_file():
        source.touch()
        with pytest.raises(SystemExit, match="not formatted yet"):
            combine(data / "train", dump)


def test_empty_lrs3_says_what_to_set(tmp_path):
    with pytest.raises(SystemExit, match=r"LRS3= in db\.sh"):
        prepare("", tmp_path)
    with pytest.raises(SystemExit, match=r"no such directory; correct LRS3="):
        prepare(tmp_path / "nowhere", tmp_path)
    with pytest.raises(SystemExit, match=r"has no pretrain/, trainval/, test/"):
        prepare(tmp_path, tmp_path)
