"""A folder of clips with a text file each, and a reader that is not of the package."""

import numpy as np
import pytest
import soundfile

from espnet_smop.bin import data_dir, prepare_corpus
from espnet_smop.corpus.readers import reader_class
from espnet_smop.corpus.readers.folder import FolderReader
from espnet_smop.corpus.utterance import CorpusError, Problem
from espnet_smop.fileio.table import read_table


@pytest.fixture
def folder(tmp_path, make):
    """Make four speakers' clips, one with a sound file of its own and one without transcript."""
    root = tmp_path / "my corpus"
    for number, speaker in enumerate(["ann", "bob", "cat", "dan o"]):
        for clip in range(2):
            video, audio = make.content(number, frames=10)
            path = make.mp4(root / speaker / f"{clip}.mp4", video, audio)
            path.with_suffix(".txt").write_text(f"Hello {{World}}\n{clip}\n")
            np.save(path.with_suffix(".npy"), make.landmarks(10))
    soundfile.write(root / "ann/0.wav", np.zeros(6400), 16000)
    (root / "bob/1.txt").unlink()
    (root / "notes.txt").write_text("no clip")
    return root


def by_id(corpus):
    return {u.id: u for u in corpus.train}


def test_clips_speakers_and_texts(folder):
    corpus = FolderReader().read(folder)
    found = by_id(corpus)
    assert sorted(found) == ["ann_0", "ann_1", "bob_0", "cat_0", "cat_1", "dan_o_0", "dan_o_1"]
    assert found["dan_o_1"].speaker == "dan_o" and found["dan_o_1"].name == "dan o/1"
    assert found["ann_0"].audio.endswith("ann/0.wav") and found["ann_0"].video.endswith(".mp4")
    assert found["ann_1"].audio == found["ann_1"].video
    assert found["ann_0"].landmarks.endswith("ann/0.npy") and found["ann_0"].kind == "face"
    assert found["ann_0"].text == "Hello {World} 0"
    assert corpus.train_problems == [Problem(str(folder / "bob/1"), "has no text file beside it")]
    assert "audio and video" in corpus.form
    read = FolderReader(normalise_text=True, mouth_crops=True).read(folder)
    assert by_id(read)["ann_0"].text == "hello world 0" and by_id(read)["ann_0"].kind == "mouth"


def test_modalities(folder, make):
    sound = by_id(FolderReader(modalities=["audio"]).read(folder))["bob_0"]
    assert sound.video is None and sound.landmarks is None and sound.audio.endswith("0.mp4")
    pictures = by_id(FolderReader(modalities=["video"]).read(folder))["bob_0"]
    assert pictures.audio is None and pictures.video.endswith("0.mp4")
    # What the first clip has is what is read.
    (folder / "ann/0.wav").unlink()
    make.mp4(folder / "ann/0.mp4", make.content(0)[0])
    assert all(u.audio is None for u in FolderReader().read(folder).train)
    (folder / "ann/0.mp4").unlink()
    soundfile.write(folder / "ann/0.WAV", np.zeros(6400), 16000)
    assert all(u.video is None for u in FolderReader().read(folder).train)
    problems = FolderReader(modalities=["audio", "video"]).read(folder).train_problems
    assert Problem(str(folder / "ann/0"), "has no video file") in problems


def test_a_table_of_speakers(folder, tmp_path):
    table = tmp_path / "speakers"
    table.write_text("ann/0 Ann B\nann/1 ann\n0 somebody\nbob/1 x\ncat/1 cat\n")
    corpus = FolderReader(speakers=table).read(folder)
    found = {u.name: (u.id, u.speaker) for u in corpus.train}
    assert found == {
        "ann/0": ("Ann_B_ann_0", "Ann_B"),
        "ann/1": ("ann_1", "ann"),
        "bob/0": ("somebody_bob_0", "somebody"),
        "cat/0": ("somebody_cat_0", "somebody"),
        "cat/1": ("cat_1", "cat"),
        "dan o/0": ("somebody_dan_o_0", "somebody"),
    }
    unnamed = Problem(str(folder / "dan o/1"), "--speakers does not name it")
    assert unnamed in corpus.train_problems


def test_clips_without_folders_are_speakers_of_their_own(tmp_path):
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(6400), 16000)
        (tmp_path / f"{name}.txt").write_text("x")
    assert {u.speaker for u in FolderReader().read(tmp_path).train} == {"a", "b"}


def test_errors(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(CorpusError, match=r"has no clip; expected NAME\.mp4 or NAME\.wav"):
        FolderReader().read(tmp_path)
    (tmp_path / "a.mp4").write_text("no media")
    with pytest.raises(
        CorpusError, match=r"a\.mp4: damaged, or not a media file.*give --modalities"
    ):
        FolderReader().read(tmp_path)
    for name, content in (("empty", b" \n"), ("latin", b"caf\xe9")):
        (tmp_path / f"{name}.wav").write_bytes(b"")
        (tmp_path / f"{name}.txt").write_bytes(content)
    problems = FolderReader(modalities=["audio"]).read(tmp_path).train_problems
    assert Problem(str(tmp_path / "empty"), "empty transcript") in problems
    assert Problem(str(tmp_path / "latin.txt"), "is not UTF-8") in problems


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_sets_of_one_modality_are_formatted(folder, tmp_path, modality, capsys):
    data, dump = tmp_path / "data", tmp_path / "dump"
    (tmp_path / "test").write_text("cat\n")
    where = ["folder", "--root", str(folder), "--out_dir", str(data), "--modalities", modality]
    prepare_corpus.main([*where, "--test_list", str(tmp_path / "test")])
    tables = {n: read_table(data / n / "utt2spk") for n in ("train", "valid", "test")}
    assert set(tables["test"].values()) == {"cat"} and len(tables["test"]) == 2
    assert not set(tables["train"].values()) & set(tables["valid"].values())
    assert data_dir.main(["fix", *(str(data / n) for n in tables)]) == 0
    format_ = ["--data_dir", str(data / "test"), "--out_dir", str(dump)]
    data_dir.main(["format", *format_, "--landmarks", "files", "--strict_test"])
    data_dir.main(["combine", *format_])
    assert "2 utterances, 0.00 hours, 0 broken" in capsys.readouterr().out
    scp, lengths, length = {
        "audio": ("wav.scp", "utt2num_samples", "6400"),
        "video": ("video.scp", "utt2num_frames", "10"),
    }[modality]
    assert {p.name for p in dump.iterdir()} == {
        *("data", "records", "report.txt", "text", "utt2spk", "spk2utt", scp, lengths)
    }
    assert set(read_table(dump / lengths).values()) == {length}
    assert data_dir.main(["fix", "--check", str(dump)]) == 0
    data_dir.main(["filter", "--in_dir", str(dump), "--out_dir", str(tmp_path / "f"),
                   "--min_seconds", "0.3"])  # fmt: skip
    data_dir.main(["shapes", "--data_dir", str(dump), "--out_dir", str(tmp_path / "stats")])
    assert set(read_table(tmp_path / "stats/duration_shape").values()) == {"10"}


OWN_READER = '''
from espnet_smop.corpus.readers import CorpusReader
from espnet_smop.corpus.utterance import Corpus, Utterance


class Own(CorpusReader):
    """Every wav file is somebody saying a word."""

    def __init__(self, *, word):
        self.word = word

    @classmethod
    def add_arguments(cls, parser):
        parser.add_argument("--word", default="yes")
        parser.set_defaults(test_share=0.3, valid_share=0.3)

    def read(self, root):
        return Corpus("mine", train=[
            Utterance(p.stem, p.stem, p.stem, str(p), None, self.word, p.stem)
            for p in sorted(root.glob("*.wav"))
        ])
'''


def test_a_reader_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "own_reader.py").write_text(OWN_READER)
    monkeypatch.syspath_prepend(tmp_path)
    for name in "abcdef":
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(6400), 16000)
    where = ["--root", str(tmp_path), "--out_dir", str(tmp_path / "data"), "--word", "no"]
    prepare_corpus.main(["own_reader:Own", *where])
    texts = [read_table(tmp_path / "data" / n / "text") for n in ("train", "valid", "test")]
    assert sorted(u for table in texts for u in table) == list("abcdef") and all(texts)
    assert {t for table in texts for t in table.values()} == {"no"}
    with pytest.raises(CorpusError, match="unknown reader 'owns'; .*lrs3, .*module:Class"):
        reader_class("owns")
    with pytest.raises(CorpusError, match="'own_reader:Other' cannot be used: .* no class 'Other'"):
        reader_class("own_reader:Other")


def test_a_reader_of_ones_own_needs_neither_options_nor_a_docstring(tmp_path, monkeypatch, capsys):
    source = OWN_READER.replace("    def __init__(self, *, word):\n        self.word = word\n", "")
    source = source.replace("self.word", "'yes'").replace('    """Every wav', "    # Every wav")
    source = source.replace('a word."""', "a word.")
    source = source[: source.index("    @classmethod")] + source[source.index("    def read") :]
    source += """

class Odd(Own):
    def __init__(self, *, word):
        pass


class Loose:
    def read(self, root):
        return None
"""
    (tmp_path / "bare_reader.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    for name in "abcdef":
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(6400), 16000)
    where = ["--root", str(tmp_path), "--out_dir", str(tmp_path / "data"), "--test_share", "0.3"]
    prepare_corpus.main(["bare_reader:Own", *where, "--valid_share", "0.3"])
    assert set(read_table(tmp_path / "data" / "train" / "text").values()) == {"yes"}
    with pytest.raises(SystemExit):
        prepare_corpus.main(["bare_reader:Own", "--help"])
    assert "The interface" not in capsys.readouterr().out
    with pytest.raises(CorpusError, match="Odd takes 'word', which its add_arguments does not add"):
        prepare_corpus.main(["bare_reader:Odd", *where])
    with pytest.raises(CorpusError, match="derive it from espnet_smop.corpus.readers.abs_reader"):
        reader_class("bare_reader:Loose")
