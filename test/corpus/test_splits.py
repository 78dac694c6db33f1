import random

import pytest

from espnet_smop.corpus.splits import split, split_by_list, split_by_speaker
from espnet_smop.corpus.utterance import Corpus, CorpusError, Problem, Utterance


def utterance(part, speaker, clip):
    name = f"{part}/{speaker}/{clip}"
    return Utterance(name.replace("/", "_"), speaker, name, "a", "v", "text", name)


@pytest.fixture
def utterances():
    return [utterance("trainval", f"s{i:02d}", c) for i in range(20) for c in range(i % 4 + 1)] + [
        utterance("pretrain", f"s{i:02d}", c) for i in range(25) for c in range(3)
    ]


def test_whole_speakers_deterministically(utterances):
    train, valid = split_by_speaker(utterances, 0.2, "--valid_list")
    shuffled = random.Random(0).sample(utterances, len(utterances))
    again_train, again_valid = split_by_speaker(shuffled, 0.2, "--valid_list")
    assert {u.id for u in valid} == {u.id for u in again_valid}
    assert {u.id for u in train} == {u.id for u in again_train}
    assert not {u.speaker for u in train} & {u.speaker for u in valid}
    assert all(u.name.startswith("trainval/") for u in valid)
    assert 10 <= len(valid) <= 14  # of 50 in trainval


def test_few_speakers(utterances):
    two = [u for u in utterances if u.speaker in ("s01", "s02")]
    train, valid = split_by_speaker(two, 0.99, "--valid_list")
    assert train and valid
    with pytest.raises(CorpusError, match="fewer than two training speakers"):
        split_by_speaker([u for u in utterances if u.speaker == "s01"], 0.1, "--valid_list")
    pretrain = [u for u in utterances if u.name.startswith("pretrain")]
    assert split_by_speaker(pretrain, 0.04, "--valid_list")[1]


def test_by_list(utterances):
    names = ["trainval/s03/1", "trainval_s02_0", "s07", "trainval/unknown/1"]
    train, valid = split_by_list(utterances, names, "--valid_list")
    assert len(train) + len(valid) == len(utterances)
    assert {u.speaker for u in valid} == {"s02", "s03", "s07"}
    assert sum(u.speaker == "s03" for u in valid) == 1
    with pytest.raises(CorpusError, match="--valid_list names none"):
        split_by_list(utterances, ["nobody"], "--valid_list")


def test_sets_that_a_corpus_lacks_are_split_off(utterances, tmp_path):
    corpus = Corpus("a form", train=utterances)
    with pytest.raises(CorpusError, match="DIR: holds no test clips; .*--test_share or"):
        split(corpus, "DIR", valid_share=0.1)
    sets = split(corpus, "DIR", valid_share=0.1, test_share=0.1)
    speakers = [{u.speaker for u in s} for s in (sets.train, sets.valid, sets.test)]
    assert all(speakers) and len(set.union(*speakers)) == sum(map(len, speakers))
    assert split(corpus, "DIR", valid_share=0.1, test_share=0.1) == sets
    (tmp_path / "test").write_text("\ufefftrainval/s03/1\r\ns04\n\n")
    listed = split(corpus, "DIR", valid_share=0.1, test_list=tmp_path / "test", test_share=0.1)
    assert {u.speaker for u in listed.test} == {"s03", "s04"}
    (tmp_path / "test").write_text("s04\ntrainval/s03/9\ns99\n")
    corpus.train_problems = [Problem("/lrs3/trainval/s03/9.mp4", "no text")]
    lost = "2 of the names .*: /lrs3/trainval/s03/9.mp4: no text; s99: no such clip. Repair"
    with pytest.raises(CorpusError, match=lost):
        split(corpus, "DIR", valid_share=0.1, test_list=tmp_path / "test")
    assert split(
        corpus, "DIR", valid_share=0.1, test_list=tmp_path / "test", allow_broken=True
    ).test
    with pytest.raises(CorpusError, match="none: No such file or directory; check --valid_list"):
        split(corpus, "DIR", valid_share=0.1, test_share=0.1, valid_list=tmp_path / "none")


def test_a_corpus_keeps_its_own_sets(utterances):
    train, valid, test = utterances[:20], utterances[20:25], utterances[25:]
    corpus = Corpus("a form", train=train, valid=valid, test=test)
    assert split(corpus, "DIR", valid_share=0.1, test_share=0.1) == corpus
    corpus.test_problems = [Problem("clip", "no text")]
    with pytest.raises(CorpusError, match="would lose 1 clips: clip: no text. Repair them"):
        split(corpus, "DIR", valid_share=0.1)
    assert split(corpus, "DIR", valid_share=0.1, allow_broken=True).test == test
