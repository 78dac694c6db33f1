import re

import pytest

from espnet_smop.bin import prepare_corpus
from espnet_smop.corpus.readers.lrs2 import LRS2Reader
from espnet_smop.corpus.utterance import CorpusError, Problem
from espnet_smop.fileio.table import read_table

LISTS = {
    "pretrain": "111/00001\n222/00001\n",
    "train": "111/00001\n111/00002\n",
    "val": "333/00001\n",
    "test": "444/00001 NF\n444/00007 MV\n",
}
SETS = {"train": 5, "valid": 1, "test": 2}  # utterances of data/SET, one clip cut into two
SPOKEN = [(f"W{i}", 0.1 + 0.4 * i, 0.4 + 0.4 * i) for i in range(12)]


def write_text(path, text, words=()):
    """Write a clip as its reader sees it: media are not decoded."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".mp4").touch()
    table = "".join(f"{w} {s:.2f} {e:.2f} 5.1\n" for w, s, e in words)
    header = "\nWORD START END ASDSCORE\n" if words else ""
    path.with_suffix(".txt").write_text(f"Text:  {text}\nConf:  4\n{header}{table}")


@pytest.fixture(params=["beside", "inside"])
def root(request, tmp_path):
    """A tree whose lists are beside mvlrs_v1/, as they are named by LRS2=, or inside it."""
    corpus = tmp_path / "the corpus"
    tree = corpus / "mvlrs_v1"
    write_text(tree / "pretrain/111/00001.mp4", " ".join(w for w, _, _ in SPOKEN), SPOKEN)
    write_text(tree / "pretrain/222/00001.mp4", "{NS} SHORT ONE", [("SHORT", 0.2, 1.0)])
    for clip in ("111/00001", "111/00002", "333/00001", "444/00001", "444/00007"):
        write_text(tree / f"main/{clip}.mp4", f"IT'S {clip[-1]}")
    write_text(tree / "main/999/00001.mp4", "IN NO LIST")
    given = corpus if request.param == "beside" else tree
    for name, lines in LISTS.items():
        (given / f"{name}.txt").write_text(lines)
    return given


@pytest.fixture
def tree(root):
    return root / "mvlrs_v1" if root.name != "mvlrs_v1" else root


def test_lists_name_the_sets(root, tree):
    corpus = LRS2Reader().read(root)
    assert [u.id for u in corpus.valid] == ["333_00001"]
    assert [(u.id, u.text) for u in corpus.test] == [
        ("444_00001", "it's 1"),
        ("444_00007", "it's 7"),
    ]
    assert [u.id for u in corpus.train] == [
        "111_pretrain_00001", "222_pretrain_00001", "111_00001", "111_00002",
    ]  # fmt: skip
    whole = corpus.train[1]
    assert (whole.name, whole.speaker, whole.text) == ("pretrain/222/00001", "222", "short one")
    assert whole.audio == whole.video == str(tree / "pretrain/222/00001.mp4")
    assert (whole.start, whole.end, whole.kind) == (0, None, "face")
    assert not corpus.train_problems and not corpus.test_problems
    (only,) = {u.name.split("/")[0] for u in LRS2Reader(train_parts=["train"]).read(root).train}
    assert only == "main"


def test_pretrain_clips_are_cut_between_words(root):
    corpus = LRS2Reader(train_parts=["pretrain"], max_seconds=3.0).read(root)
    pieces = [u for u in corpus.train if u.recording == "111_pretrain_00001"]
    assert len(pieces) == 2
    assert " ".join(u.text for u in pieces) == " ".join(w.lower() for w, _, _ in SPOKEN)
    for piece in pieces:
        assert piece.id == f"111_pretrain_00001_{piece.start * 4:06d}_{piece.end * 4:06d}"
        spoken = [(s, e) for w, s, e in SPOKEN if w.lower() in piece.text.split()]
        # Frames of 0.04 s, and pauses of 0.1 s that are cut in their middle
        assert spoken[0][0] - 0.12 <= piece.start * 0.04 <= spoken[0][0]
        assert spoken[-1][1] <= piece.end * 0.04 <= spoken[-1][1] + 0.5
        assert piece.end - piece.start <= 75
    # Tables of other sets cut nothing
    assert all(u.end is None for u in [*corpus.valid, *corpus.test])


def test_test_and_validation_clips_are_never_cut(root, tree):
    for clip in ("333/00001", "444/00001"):
        write_text(tree / f"main/{clip}.mp4", "LONG", SPOKEN)
    corpus = LRS2Reader(max_seconds=3.0).read(root)
    assert all(u.end is None for u in [*corpus.valid, *corpus.test])


def test_landmark_files(root, tree, tmp_path):
    (tree / "main/444/00001.npy").touch()
    assert LRS2Reader().read(root).test[0].landmarks == str(tree / "main/444/00001.npy")
    other = tmp_path / "landmarks/main/444/00007.pkl"
    other.parent.mkdir(parents=True)
    other.touch()
    found = LRS2Reader(landmarks_dir=tmp_path / "landmarks").read(root).test
    assert [u.landmarks for u in found] == [None, str(other)]


def test_missing_files_are_reported(root, tree):
    clips = ("pretrain/222/00001.mp4", "main/111/00002.txt", "main/333/00001.mp4")
    for name in (*clips, "main/444/00007.mp4"):
        (tree / name).unlink()
    corpus = LRS2Reader().read(root)
    assert [p.path for p in corpus.train_problems] == [str(tree / name) for name in clips]
    assert "each clip needs its text file beside it" in corpus.train_problems[1].reason
    lost = str(tree / "main/444/00007.mp4")
    assert corpus.test_problems == [Problem(lost, "no such clip, but its set's list names it")]
    assert len(corpus.train) == 2 and len(corpus.test) == 1 and not corpus.valid


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "test",
            "444/00001 NF\n\n444/00001\n",
            r"test.txt:3: 444/00001 is also listed at test.txt:1;",
        ),
        ("test", "111/00002 NF\n", r"test.txt:1: 111/00002 is also listed at train.txt:2;"),
        ("val", "333/00001 NF extra\n", r"val.txt:1: expected ID/CLIP"),
        ("train", "00001\n", r"train.txt:1: expected ID/CLIP"),
        ("train", "main/111/00001\n", r"train.txt:1: expected ID/CLIP"),
        ("train", "../111\n", r"train.txt:1: expected ID/CLIP"),
        ("train", "/111\n", r"train.txt:1: expected ID/CLIP"),
        ("train", "111/..\n", r"train.txt:1: expected ID/CLIP"),
        ("train", "111/0\0001\n", r"train.txt:1: expected ID/CLIP"),
        ("train", "111/0\u20281\n", r"train.txt:1: expected ID/CLIP"),
        ("train", f"111/{'0' * 5000}\n", r"train.txt:1: expected ID/CLIP"),
        ("train", "<html>\n", r"train.txt:1: expected ID/CLIP"),
        ("pretrain", "\n \n", r"pretrain.txt: lists no clip"),
        ("pretrain", None, r"has no pretrain.txt; give the directory that holds LRS2's mvlrs_v1/"),
    ],
)
def test_lists_that_are_none(root, name, content, message):
    path = root / f"{name}.txt"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(CorpusError, match=message) as error:
        LRS2Reader().read(root)
    assert "\n" not in str(error.value) and str(root) in str(error.value)


def test_lists_as_windows_and_editors_write_them(root):
    (root / "test.txt").write_bytes(b"\xef\xbb\xbf444/00001\tNF\r\n\r\n 444/00007 MV")
    assert [u.id for u in LRS2Reader().read(root).test] == ["444_00001", "444_00007"]
    (root / "test.txt").write_bytes(b"444/\xff\n")
    with pytest.raises(CorpusError, match=r"test.txt: is not UTF-8; download the list again"):
        LRS2Reader().read(root)


def test_a_tree_without_clips_is_named(tmp_path):
    for name, lines in LISTS.items():
        (tmp_path / f"{name}.txt").write_text(lines)
    (tmp_path / "pretrain").mkdir()
    with pytest.raises(CorpusError, match=f"^{re.escape(str(tmp_path))}: has no main/; give the"):
        LRS2Reader().read(tmp_path)


def test_data_directories(root, tmp_path, capsys):
    where = ["--root", str(root), "--out_dir", str(tmp_path / "data")]
    prepare_corpus.main(["lrs2", *where, "--max_seconds", "3"])
    assert "LRS2 as distributed" in capsys.readouterr().out
    sets = {name: read_table(tmp_path / "data" / name / "text") for name in SETS}
    assert {name: len(texts) for name, texts in sets.items()} == SETS
    assert len(read_table(tmp_path / "data/train/segments")) == 5

    (root / "test.txt").write_text("444/00001 NF\n444/00009 NF\n")
    with pytest.raises(CorpusError, match=r"would lose 1 clips: .*444/00009.mp4: no such clip"):
        prepare_corpus.main(["lrs2", *where])
