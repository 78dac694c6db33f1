import filecmp
import random

import pytest
import sentencepiece
from transformers import AutoTokenizer

from pretraining.tokenizer import main, read_sentences

WORDS = ["place", "set", "lay", "bin", "blue", "green", "at", "with", "now", "aaa", "aaaa"]


def sentences(count, seed):
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(count)]


@pytest.fixture
def trained(tmp_path):
    text = tmp_path / "two words.txt"
    text.write_text("\n".join(sentences(300, 0)) + "\n\n")
    out = tmp_path / "a tokenizer"
    main(["--text", str(text), "--vocab_size", "70", "--out", str(out)])
    return text, out


def test_same_ids_as_sentencepiece(trained):
    _, out = trained
    tokenizer = AutoTokenizer.from_pretrained(out)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(out / "sentencepiece.model"))
    unusual = ["", " ", "  place   blue ", "plac eblue", "aaaaaaaaaaaaa", "xyz blue Ünknown q", "a"]
    scrambled = ["".join(random.Random(i).choices("abeilnstw ", k=40)) for i in range(200)]
    for sentence in sentences(300, 1) + unusual + scrambled:
        assert tokenizer(sentence).input_ids == reference.encode(sentence), sentence


def test_roundtrip_and_special_tokens(trained):
    _, out = trained
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert len(tokenizer) == 70
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id) == (0, 1)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 3)
    for sentence in sentences(50, 2):
        ids = tokenizer(sentence, add_special_tokens=False).input_ids
        assert tokenizer.decode([1, *ids, 2, 3], skip_special_tokens=True) == sentence


def test_deterministic_and_replaces(trained, tmp_path):
    text, out = trained
    again = tmp_path / "again"
    again.mkdir()
    (again / "old").touch()
    main(["--text", str(text), "--vocab_size", "70", "--out", str(again)])
    names = sorted(p.name for p in out.iterdir())
    assert sorted(p.name for p in again.iterdir()) == names
    assert filecmp.cmpfiles(out, again, names, shallow=False)[0] == names
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a tokenizer", "again", "two words.txt"]


def test_kaldi_text(tmp_path):
    (tmp_path / "text").write_text("spk1-001 place blue\nspk1-002\nspk1-003  now \n")
    assert read_sentences([tmp_path / "text"], kaldi=True) == ["place blue", "now"]


@pytest.mark.parametrize("size", ["5", "5000"])
def test_impossible_size_leaves_nothing(trained, tmp_path, size):
    text, _ = trained
    with pytest.raises(ValueError, match="vocab_size"):
        main(["--text", str(text), "--vocab_size", size, "--out", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()
