import itertools
import math
import random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from pretraining import llm
from pretraining import tokenizer as lm_tokenizer
from pretraining.llm import loss_sum, with_copies


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Sentences of three words, each out of four; a sentence has at best perplexity 64."""
    directory = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)
    words = [["bin", "lay", "place", "set"], ["blue", "green", "red", "white"], list("abei")]
    for name, count in (("train", 160), ("valid", 40)):
        lines = [f"u{i} " + " ".join(map(draw.choice, words)) for i in range(count)]
        (directory / name).write_text("\n".join(lines) + "\n")
    tokenizer = str(directory / "tokenizer")
    train = str(directory / "train")
    lm_tokenizer.main(["--kaldi", "--text", train, "--vocab_size", "48", "--out", tokenizer])
    return directory


def run(corpus, out, *options):
    files = {
        "tokenizer": corpus / "tokenizer",
        "text": corpus / "train",
        "valid_text": corpus / "valid",
        "out": out,
    }
    size = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "batch_size": 16, "epochs": 8}
    arguments = [f"--{k}={v}" for k, v in (files | size).items()]
    llm.main(["--kaldi", *arguments, *options])
    return (out / "model.safetensors").read_bytes()


def test_learns_the_grammar_and_loads(corpus, tmp_path):
    run(corpus, tmp_path / "llm", "--lr", "1e-2")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "llm")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "llm")
    ids = torch.tensor([[1, *tokenizer("lay green b").input_ids, 2]])
    nats = loaded(input_ids=ids, labels=ids).loss.item() * (ids.size(1) - 1)
    assert abs(nats - math.log(64)) < 1.0


def test_deterministic_by_seed(corpus, tmp_path):
    first = run(corpus, tmp_path / "1", "--steps", "7")
    assert run(corpus, tmp_path / "2", "--steps", "7") == first
    assert run(corpus, tmp_path / "3", "--steps", "7", "--seed", "1") != first


def test_finished_directory_is_kept_unless_settings_differ(corpus, tmp_path):
    out = tmp_path / "llm"
    run(corpus, out, "--steps", "2")
    made = (out / "config.json").stat().st_ino
    run(corpus, out, "--steps", "2")
    assert (out / "config.json").stat().st_ino == made
    run(corpus, out, "--steps", "3")
    assert (out / "config.json").stat().st_ino != made
    assert [p.name for p in tmp_path.iterdir()] == ["llm"]


def test_keeps_the_weights_that_validate_best_and_stops(corpus, caplog):
    tokenizer = AutoTokenizer.from_pretrained(corpus / "tokenizer")
    sequences = [
        torch.tensor([1, *tokenizer(line.partition(" ")[2]).input_ids, 2])
        for line in (corpus / "train").read_text().splitlines()
    ]
    torch.manual_seed(0)
    model = llm.build_model(tokenizer, hidden_size=32, num_layers=1, num_heads=2)
    caplog.set_level("INFO")
    # Eight sentences are learnt by heart at once; the validation loss then rises.
    best = llm.train(
        model, sequences[:8], sequences[8:], steps=500, batch_size=8, lr=1e-2, patience=3
    )
    assert llm.perplexity(model, sequences[8:]) == pytest.approx(best)
    marks = [line.endswith("*") for line in caplog.messages if line.startswith("epoch")]
    assert len(marks) < 500 and marks[-4:] == [True, False, False, False]


def test_perplexity_ignores_padding(corpus):
    tokenizer = AutoTokenizer.from_pretrained(corpus / "tokenizer")
    torch.manual_seed(0)
    model = llm.build_model(tokenizer, hidden_size=32, num_layers=1, num_heads=2)
    short, long = torch.tensor([1, 5, 2]), torch.tensor([1, 7, 8, 9, 10, 11, 2])
    log_short, log_long = (math.log(llm.perplexity(model, [s])) for s in (short, long))
    together = math.log(llm.perplexity(model, [long, short]))
    assert together == pytest.approx((2 * log_short + 6 * log_long) / 8, rel=1e-5)


def test_renditions_come_before_the_sentence_and_are_not_predicted():
    sequences = [torch.tensor([1, 10, 11, 12, 2])] * 200
    documents, given = with_copies(sequences, 0.5, random.Random(0), fillers=range(4, 9))
    said = [d[1:n].tolist() for d, n in zip(documents, given, strict=True)]
    assert all(d[n:].tolist() == [10, 11, 12, 2] for d, n in zip(documents, given, strict=True))
    assert all(d[0] == 1 for d in documents)
    noisy = [s for s in said if s]
    assert 70 < len(noisy) < 130
    renditions = [[t for t, _ in itertools.groupby(t for t in s if t >= 10)] for s in noisy]
    # Every third has no wrong tokens; half of these are two renditions.
    assert sum(r == [10, 11, 12] for r in renditions) > 10
    assert sum(r == [10, 11, 12] * 2 for r in renditions) > 5
    assert sum(len(r) not in (3, 6) for r in renditions) > 10
    assert {t for s in noisy for t in s} <= {10, 11, 12, *range(4, 9)}


def test_what_is_given_is_not_predicted():
    config = LlamaConfig(
        vocab_size=13, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    sequences = [torch.tensor([1, 4, 5, 10, 2]), torch.tensor([1, 10, 2])]
    loss, count = loss_sum(model, sequences, [3, 1])
    assert count == 4
    expected = 0.0
    for sequence, start in zip(sequences, (3, 1), strict=True):
        log_probs = model(input_ids=sequence[None]).logits[0].log_softmax(-1)
        expected -= sum(log_probs[i - 1, sequence[i]] for i in range(start, len(sequence)))
    assert torch.allclose(loss, expected, atol=1e-5)
