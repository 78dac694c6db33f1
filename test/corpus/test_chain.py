"""From LRS3's directory to what training reads, by the commands that the recipe calls."""

import numpy as np
import pytest
import soundfile

from espnet_smop.bin import data_dir, prepare_corpus
from espnet_smop.corpus.datadir import DataDirError
from espnet_smop.corpus.utterance import CorpusError
from espnet_smop.fileio.table import read_table
from espnet_smop.fileio.video import read_video


def prepare(root, data, *more, reader="any_lrs3"):
    where = ["--root", str(root), "--out_dir", str(data)]
    prepare_corpus.main([reader, *where, "--max_seconds", "2", *more])


def format_set(data, dump, *more, num_jobs=1):
    for job in range(1, num_jobs + 1):
        jobs = ["--num_jobs", str(num_jobs), "--job", str(job)]
        where = ["--data_dir", str(data), "--out_dir", str(dump)]
        data_dir.main(["format", *where, *jobs, "--landmarks", "files", *more])


def combine(data, dump, *more):
    data_dir.main(["combine", "--data_dir", str(data), "--out_dir", str(dump), *more])


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
    assert data_dir.main(["fix", "--check", *(str(data / n) for n in sets)]) == 0

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
    assert data_dir.main(["fix", "--check", str(dump / "train")]) == 0

    where = ["--in_dir", str(dump / "train"), "--out_dir", str(dump / "kept")]
    data_dir.main(["filter", *where, "--max_seconds", "1.5"])
    dropped = read_table(dump / "kept/dropped.txt")
    assert set(dropped) | set(read_table(dump / "kept/text")) == set(wav)
    assert dropped and all("longer than 1.5 s" in why for why in dropped.values())

    babble = tmp_path / "noise" / "babble.wav"
    arguments = ["--data_dir", str(dump / "train"), "--num_utts", "4", "--seconds", "3"]
    data_dir.main(["babble", *arguments, "--out", str(babble)])
    first = babble.read_bytes()
    noise, rate = soundfile.read(babble)
    assert rate == 16000 and len(noise) == 48000 and 0.8 < np.abs(noise).max() < 1
    data_dir.main(["babble", *arguments, "--out", str(babble)])
    assert babble.read_bytes() == first
    data_dir.main(["babble", *arguments, "--out", str(babble), "--seed", "1"])
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
    with pytest.raises(DataDirError, match="1 utterances are not formatted yet"):
        combine(data / "train", dump)
    format_set(data / "train", dump, num_jobs=3)
    combine(data / "train", dump)
    assert not list((dump / "data").rglob(".part-*"))
    partner = {p for p in files if p.stem == victim.stem}
    assert all(p.stat().st_mtime_ns == t for p, t in files.items() if p not in partner)
    assert victim.is_file()
    # A source that changed is made anew.
    source = lrs3 / "trainval" / victim.parent.name / f"{victim.stem.split('_')[1]}.mp4"
    if source.is_file():
        source.touch()
        with pytest.raises(DataDirError, match="not formatted yet"):
            combine(data / "train", dump)


def test_other_settings_make_clips_anew_and_back(lrs3, tmp_path):
    data, dump = tmp_path / "data", tmp_path / "dump"
    prepare(lrs3, data)
    (dump / "data").mkdir(parents=True)
    times = []
    for landmarks in ("files", "auto", "files", "files"):
        format_set(data / "test", dump, "--landmarks", landmarks)
        times.append((dump / "data/tt/tt_00001.mkv").stat().st_mtime_ns)
    # What is there after the second is not what the first made, whatever its record says.
    assert times[0] < times[1] < times[2] == times[3]


def test_a_wrong_corpus_directory_says_what_to_correct(tmp_path):
    with pytest.raises(CorpusError, match=r"no corpus directory is given; .* db\.sh"):
        prepare("", tmp_path)
    with pytest.raises(CorpusError, match=r"no such directory; correct its path .*db\.sh"):
        prepare(tmp_path / "nowhere", tmp_path)
    with pytest.raises(CorpusError, match=r"neither LRS3 as distributed"):
        prepare(tmp_path, tmp_path)
    (tmp_path / "trainval").mkdir()
    with pytest.raises(CorpusError, match=r"has no pretrain/, test/"):
        prepare(tmp_path, tmp_path)


def test_broken_training_clips_are_reported_and_the_others_done(lrs3, tmp_path, make):
    data, dump = tmp_path / "data", tmp_path / "dump"
    folder = lrs3 / "trainval" / "ee"
    content = make.content(3)
    good = make.clip(folder, "00000", "FINE", seed=1)
    make.clip(folder, "00001", "CUT OFF")
    whole = (folder / "00001.mp4").read_bytes()
    (folder / "00001.mp4").write_bytes(whole[: len(whole) // 2])
    make.clip(folder, "00002", "SILENT FILM")
    make.mp4(folder / "00002.mp4", content[0])
    make.clip(folder, "00003", "ONLY SOUND")
    make.mp4(folder / "00003.mp4", None, content[1])
    make.clip(folder, "00004", "NOTHING")
    (folder / "00004.mp4").write_bytes(b"")
    make.clip(folder, "00005", "LONG SOUND")
    make.mp4(folder / "00005.mp4", content[0], np.pad(content[1], (0, 32000)))
    make.clip(folder, "00006", "OTHER FACE")
    np.save(folder / "00006.npy", make.landmarks(40))
    make.clip(folder, "00007", "NO FACE")
    np.save(folder / "00007.npy", np.full((25, 68, 2), np.nan))
    make.clip(folder, "00008", "{NS}")
    make.clip(folder, "00009", "NO TEXT")
    (folder / "00009.txt").unlink()
    valid = tmp_path / "valid.txt"
    valid.write_text("trainval/aa/50000\n")
    prepare(lrs3, data, "--valid_list", str(valid), "--train_parts", "trainval")
    report = (data / "train/prepare.txt").read_text()
    assert "00008.mp4: empty transcript" in report and "00009.txt" in report
    assert "2 clips left out" in report

    format_set(data / "train", dump)
    combine(data / "train", dump)
    assert good.is_file() and "ee_00000" in read_table(dump / "text")
    lines = (dump / "report.txt").read_text().splitlines()
    broken = {line.split(": ")[1]: line for line in lines if line.startswith("broken")}
    for utterance, cause in {
        "ee_00001": "damaged, or not a media file",
        "ee_00002": "has no audio stream",
        "ee_00003": "has no video stream",
        "ee_00004": "file of 0 bytes",
        "ee_00005": "audio is 2.0",
        "ee_00006": "25 frames but landmarks for 40",
        "ee_00007": "no face found",
    }.items():
        assert cause in broken.pop(utterance)
    assert not broken
    assert lines[0].startswith("6 utterances, 0.00 hours, 7 broken")


def test_test_sets_lose_nothing_silently(lrs3, tmp_path, make):
    data, dump = tmp_path / "data", tmp_path / "dump"
    folder = lrs3 / "test" / "tt"
    make.clip(folder, "00003", "NO FACE", seed=4)
    np.save(folder / "00003.npy", np.full((25, 68, 2), np.nan))
    make.clip(folder, "00004", "LONG SOUND", seed=5)
    video, audio = make.content(5)
    make.mp4(folder / "00004.mp4", video, np.pad(audio, (0, 32000)))
    make.clip(folder, "00005", "", seed=6)
    with pytest.raises(CorpusError, match=r"would lose 1 clips: .*00005.mp4: empty transcript"):
        prepare(lrs3, data)
    (folder / "00005.txt").write_text("Text:  SAID\nConf:  1\n")
    prepare(lrs3, data)
    make.mp4(folder / "00005.mp4", video)
    format_set(data / "test", dump, "--strict_test")
    with pytest.raises(DataDirError, match=r"would lose 1 utterances: .*00005.mp4: has no audio"):
        combine(data / "test", dump)
    combine(data / "test", dump, "--allow_broken")
    report = (dump / "report.txt").read_text()
    assert "kept: tt_00003: no face found: the crop is the picture's centre" in report
    assert "kept: tt_00004: audio is 2.0" in report
    assert set(read_table(dump / "text")) == {f"tt_0000{i}" for i in range(1, 5)}
    # Repaired, it is made without another word.
    make.clip(folder, "00005", "SAID", seed=6)
    format_set(data / "test", dump, "--strict_test")
    combine(data / "test", dump)
    assert len(read_table(dump / "text")) == 5
