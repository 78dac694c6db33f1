import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_smop.corpus.readers import lrs3
from espnet_smop.corpus.utterance import CorpusError

PRETRAIN = """Text:  SO WHAT'S {THE} NEXT
Conf:  6

WORD START END ASDSCORE
SO 0.10 0.34 6.1
WHAT'S 0.34 0.80 -1.2
{THE} 0.80 0.95 3
NEXT 1.40 1.90 5.0
"""


def test_text_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(PRETRAIN)
    read = lrs3.read_text_file(path)
    assert read.text == "SO WHAT'S {THE} NEXT"
    assert read.words[1] == lrs3.Word("WHAT'S", 0.34, 0.80) and len(read.words) == 4
    path.write_text("Text:  ONE: TWO\nConf:  4\n")
    assert lrs3.read_text_file(path) == lrs3.Transcript("ONE: TWO")


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "No such file"),
        ("", "does not begin with 'Text:'"),
        ("HELLO\n", "does not begin with 'Text:'"),
        (PRETRAIN + "NEXT 2.0\n", ":9: expected 'WORD START END"),
        (PRETRAIN + "NEXT two three 1\n", ":9: expected 'WORD START END"),
    ],
)
def test_text_file_errors(tmp_path, content, cause):
    path = tmp_path / "a.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(lrs3.TextFileError) as error:
        lrs3.read_text_file(path)
    assert str(path) in str(error.value) and cause in str(error.value)
    assert "\n" not in str(error.value)


@st.composite
def spoken(draw):
    """Words of up to 1.5 s with pauses of up to 3 s."""
    time, words = draw(st.floats(0, 2)), []
    for i in range(draw(st.integers(1, 60))):
        start = time + draw(st.sampled_from([0, 0, 0.05, 0.3, 1.2, 3.0]))
        time = start + draw(st.floats(0.05, 1.5))
        words.append(lrs3.Word(f"w{i}", round(start, 2), round(time, 2)))
    return words


@settings(max_examples=50, deadline=None)
@given(spoken(), st.sampled_from([4.0, 16.0, 24.0]))
def test_cuts_keep_every_word_whole(words, max_seconds):
    pieces = lrs3.cut(words, max_seconds)
    assert " ".join(p.text for p in pieces) == " ".join(w.text for w in words)
    frame = 1 / 25
    times = {w.text: (w.start, w.end) for w in words}
    for piece in pieces:
        spoken = [times[w] for w in piece.text.split()]
        assert 0 < piece.end - piece.start <= max_seconds * 25
        # A cut within half a frame of a word is as near as frames allow.
        assert piece.start * frame <= spoken[0][0] + frame / 2 + 1e-9
        assert piece.end * frame >= spoken[-1][1] - frame / 2 - 1e-9
        assert piece.start * frame >= spoken[0][0] - 0.52
        assert piece.end * frame <= spoken[-1][1] + 0.52
    for before, after in itertools.pairwise(pieces):
        assert before.end <= after.start


def test_cut_takes_the_longest_pause():
    words = [lrs3.Word(f"w{i}", i * 0.5, i * 0.5 + 0.4) for i in range(24)]
    # A pause of 0.8 s instead of 0.1 s after word 13.
    words = [
        w if i <= 13 else lrs3.Word(w.text, w.start + 0.7, w.end + 0.7) for i, w in enumerate(words)
    ]
    first, second = lrs3.cut(words, 8.0)
    assert first.text.split()[-1] == "w13"
    assert first.end == second.start == round((6.9 + 7.7) / 2 * 25)


def test_a_word_that_never_ends():
    with pytest.raises(CorpusError, match=r"the word 'aah' at 1\.00 s is longer than 4 s"):
        lrs3.cut([lrs3.Word("aah", 1, 9), lrs3.Word("b", 9, 10)], 4)


def test_ids_of_parts_do_not_collide(tmp_path, make):
    for part in ("pretrain", "trainval", "test"):
        make.clip(tmp_path / part / "some body", "00001", "HELLO", frames=2)
    corpus = lrs3.LRS3Reader(train_parts=["pretrain", "trainval"]).read(tmp_path)
    ids = [u.id for u in corpus.train]
    assert ids == ["some_body_pretrain_00001", "some_body_00001"]
    assert [u.name for u in corpus.train][1] == "trainval/some body/00001"
    assert all(u.landmarks == u.video.replace(".mp4", ".npy") for u in corpus.train)
    elsewhere = tmp_path / "elsewhere" / "trainval" / "some body"
    elsewhere.mkdir(parents=True)
    (elsewhere / "00001.pkl").write_bytes(b"")
    reader = lrs3.LRS3Reader(train_parts=["trainval"], landmarks_dir=tmp_path / "elsewhere")
    corpus = reader.read(tmp_path)
    assert corpus.train[0].landmarks == str(elsewhere / "00001.pkl")
    assert corpus.test[0].landmarks is None
