import copy
import json
import shutil

import pytest
import torch
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from espnet_smop.base_model import frozen_keys
from espnet_smop.decoder.llm import LLMDecoder

ARCHITECTURES = ["llama3", "smollm", "mistral", "qwen2", "qwen3"]
TEXTS = ["place blue at f two now", "lay", "set red with q zero again"]
LORA = {"r": 4, "alpha": 8}


@pytest.fixture
def make_decoder(make_llm):
    def make(architecture="llama3", *, perturb=True, **options):
        torch.manual_seed(0)
        decoder = LLMDecoder(make_llm(architecture), **({"lora": LORA} | options))
        if perturb:  # adapters start at zero effect
            for name, parameter in decoder.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.1)
        return decoder

    return make


def targets(decoder, texts=TEXTS, padding=-1):
    ids = [torch.tensor(decoder.encode_text(t), dtype=torch.long) for t in texts]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=padding)
    return padded, torch.tensor([len(i) for i in ids])


def reference(decoder, tokens, lengths, text):
    """Summed loss, right and all predictions of Hugging Face, one utterance, all ids fed."""
    tokenizer, table = decoder.tokenizer, decoder.llm.get_input_embeddings()
    parts = [] if tokenizer.bos_token_id is None else [table.weight[[tokenizer.bos_token_id]]]
    for i, modality in enumerate(("audio", "video")):
        if modality in tokens:
            media = tokens[modality][: lengths[modality]]
            parts += [decoder.delimiters[2 * i, None], media, decoder.delimiters[2 * i + 1, None]]
    prompt = tokenizer("Transcribe speech and video to text.", add_special_tokens=False).input_ids
    ids = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    embeddings = torch.cat([*parts, table(torch.tensor(prompt + ids))])[None]
    labels = torch.full(embeddings.shape[:2], -100)
    labels[0, -len(ids) :] = torch.tensor(ids)
    out = decoder.llm(inputs_embeds=embeddings, labels=labels)
    predictions = out.logits[0, -len(ids) - 1 : -1].argmax(dim=-1)
    return out.loss * len(ids), (predictions == torch.tensor(ids)).sum(), len(ids)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("modalities", [("audio",), ("video",), ("audio", "video")])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss_and_gradients_equal_hugging_face(
    make_decoder, media, architecture, modalities, attention
):
    decoder = make_decoder(architecture, attn_implementation=attention)
    tokens, lengths = media([7, 12, 3], decoder.embed_size, modalities)
    garbage = {m: t.clone() for m, t in tokens.items()}
    for m, t in garbage.items():
        t[torch.arange(t.size(1)) >= lengths[m][:, None]] = 1e4
        t.requires_grad_()
    text, text_lengths = targets(decoder)
    out = decoder(garbage, lengths, text, text_lengths)
    out.loss.backward()
    adapters = {n: p.grad.clone() for n, p in decoder.named_parameters() if p.requires_grad}
    decoder.zero_grad()

    sums = [
        reference(
            decoder, {m: t[b] for m, t in tokens.items()}, {m: n[b] for m, n in lengths.items()}, t
        )
        for b, t in enumerate(TEXTS)
    ]
    loss, right, count = (sum(column) for column in zip(*sums, strict=True))
    (loss / count).backward()
    torch.testing.assert_close(out.loss, loss / count)
    torch.testing.assert_close(out.stats["acc"], right / count)
    assert out.num_tokens == count
    expected = {n: p.grad for n, p in decoder.named_parameters() if p.requires_grad}
    torch.testing.assert_close(adapters, expected, atol=1e-5, rtol=1e-4)
    for m, t in garbage.items():
        assert not t.grad[torch.arange(t.size(1)) >= lengths[m][:, None]].any()


def test_empty_text_and_padding_value(make_decoder, media):
    decoder = make_decoder()
    tokens, lengths = media([4, 6], decoder.embed_size)
    text, text_lengths = targets(decoder, ["", "lay blue"])
    out = decoder(tokens, lengths, text, text_lengths)
    assert out.num_tokens == text_lengths.sum() + 2
    other, _ = targets(decoder, ["", "lay blue"], padding=10**6)
    assert decoder(tokens, lengths, other, text_lengths).loss == out.loss


def test_only_adapters_and_delimiters_are_trained_and_saved(make_decoder, media):
    decoder = make_decoder()
    trained = {n for n, p in decoder.named_parameters() if p.requires_grad}
    assert len(trained) == 1 + 2 * 2 * 2  # delimiters; A and B of q and v in two layers
    assert all("lora_" in name or name == "delimiters" for name in trained)
    assert decoder.state_dict().keys() - frozen_keys(decoder) == trained

    before = {n: t.clone() for n, t in decoder.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in decoder.parameters() if p.requires_grad], lr=0.1)
    decoder.train()
    tokens, lengths = media([7, 12, 3], decoder.embed_size)
    decoder(tokens, lengths, *targets(decoder)).loss.backward()
    optimizer.step()
    changed = {n for n, t in decoder.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == trained


def test_fixed_delimiters_are_saved_all_the_same(make_decoder):
    decoder = make_decoder(train_delimiters=False, lora=None)
    assert not any(p.requires_grad for p in decoder.parameters())
    assert decoder.state_dict().keys() - frozen_keys(decoder) == {"delimiters"}


def test_delimiters_have_the_scale_of_the_embeddings(make_decoder):
    decoder = make_decoder()
    assert decoder.delimiters.shape == (4, decoder.embed_size)
    table = decoder.llm.get_input_embeddings().weight
    assert 0.7 < decoder.delimiters.std() / table.std() < 1.3


def test_bfloat16_base_keeps_float32_adapters(make_decoder, media):
    decoder = make_decoder(dtype="bfloat16")
    full = make_decoder(dtype="float32")
    for name, parameter in decoder.named_parameters():
        frozen = name.startswith("llm.") and "lora_" not in name
        assert parameter.dtype == (torch.bfloat16 if frozen else torch.float32), name
    tokens, lengths = media([7, 12, 3], decoder.embed_size)
    out = decoder(tokens, lengths, *targets(decoder))
    out.loss.backward()
    assert out.loss.dtype == torch.float32
    expected = full(tokens, lengths, *targets(decoder))
    torch.testing.assert_close(out.loss, expected.loss, atol=0.1, rtol=0.02)
    gradient = decoder.llm.base_model.layers[0].self_attn.q_proj.lora_A["default"].weight.grad
    assert gradient.dtype == torch.float32 and gradient.abs().sum() > 0
    assert len(decoder.generate(tokens, lengths, beam_size=3, max_new_tokens=4)) == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_autocast(make_decoder, media, dtype):
    decoder = make_decoder(dtype=dtype)
    tokens, lengths = media([7, 12, 3], decoder.embed_size)
    expected = decoder(tokens, lengths, *targets(decoder)).loss
    with torch.autocast("cpu", torch.bfloat16):
        out = decoder(tokens, lengths, *targets(decoder))
        hypotheses = decoder.generate(tokens, lengths, beam_size=3, max_new_tokens=4)
    out.loss.backward()
    assert out.loss.dtype == torch.float32 and decoder.delimiters.grad.abs().sum() > 0
    torch.testing.assert_close(out.loss, expected, atol=0.1, rtol=0.02)
    assert len(hypotheses) == 3


@pytest.mark.parametrize("training", [False, True])
def test_gradient_checkpointing_recomputes_and_changes_nothing(make_decoder, media, training):
    gradients, calls = [], []
    for checkpointing in (False, True):
        decoder = make_decoder(gradient_checkpointing=checkpointing)
        decoder = copy.deepcopy(decoder).train(training)
        calls.append(0)
        mlp = decoder.llm.base_model.layers[0].mlp
        mlp.register_forward_pre_hook(lambda *_: calls.__setitem__(-1, calls[-1] + 1))
        tokens, lengths = media([7, 12, 3], decoder.embed_size)
        tokens["audio"].requires_grad_()
        decoder(tokens, lengths, *targets(decoder)).loss.backward()
        trained = {n: p.grad for n, p in decoder.named_parameters() if p.requires_grad}
        gradients.append(trained | {"audio": tokens["audio"].grad})
    torch.testing.assert_close(gradients[0], gradients[1], atol=0, rtol=0)
    assert calls == [1, 2]
    assert len(decoder.generate(tokens, lengths, beam_size=2, max_new_tokens=3)) == 3


def test_dropout_acts_in_adapters_and_in_training_only(make_decoder, media):
    decoder = make_decoder(lora=LORA | {"dropout": 0.5})
    tokens, lengths = media([7, 12, 3], decoder.embed_size)

    def loss():
        return decoder(tokens, lengths, *targets(decoder)).loss

    decoder.train()
    assert loss() != loss()
    decoder.eval()
    assert loss() == loss()


def test_prompt_follows_the_modalities(make_decoder, media):
    def prefix(modalities, **options):
        decoder = make_decoder(**options)
        (prefix,) = decoder._prefixes(*media([4], decoder.embed_size, modalities))
        return prefix

    for modalities, prompt in {
        ("audio",): "Transcribe speech to text.",
        ("audio", "video"): "Transcribe speech and video to text.",
    }.items():
        assert torch.equal(prefix(modalities, prompt=None), prefix(modalities, prompt=prompt))


def test_chat_template_is_used(make_llm, make_decoder, media, tmp_path):
    with pytest.raises(ValueError, match="no chat template"):
        make_decoder(chat_template=True)
    directory = shutil.copytree(make_llm(), tmp_path / "instruct")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.chat_template = "{{ bos_token }}a {{ messages[0].content }} b"
    tokenizer.save_pretrained(directory)
    decoder = LLMDecoder(str(directory), lora=None, prompt="red", chat_template=True)
    tokens, lengths = media([4], decoder.embed_size, ("audio",))
    (prefix,) = decoder._prefixes(tokens, lengths)
    before = [tokenizer.bos_token_id, *decoder.encode_text("a ")]
    after = decoder.encode_text("red b")
    assert torch.equal(prefix[: len(before)], decoder.embed(torch.tensor(before)))
    assert torch.equal(prefix[len(before) + 6 :], decoder.embed(torch.tensor(after)))


def test_text_and_ids(make_decoder):
    decoder = make_decoder()
    for text in TEXTS:
        ids = decoder.encode_text(text)
        special = {decoder.tokenizer.bos_token_id, decoder.tokenizer.eos_token_id}
        assert not special & set(ids)
        beyond_the_vocabulary = len(decoder.tokenizer) + 3
        assert decoder.decode_ids([*ids, *special, beyond_the_vocabulary]) == text


def test_fingerprint_is_of_the_base_alone(make_decoder):
    plain = make_decoder(lora=None).fingerprints()
    assert make_decoder(dtype="bfloat16").fingerprints() == plain
    assert make_decoder("smollm").fingerprints() != plain


def test_wrong_settings_are_named(make_llm, make_decoder, media, tmp_path):
    with pytest.raises(ValueError, match="rank"):
        make_decoder(lora={"rank": 4})
    decoder = make_decoder()
    tokens, lengths = media([4], decoder.embed_size)
    with pytest.raises(ValueError, match="nbest"):
        decoder.generate(tokens, lengths, beam_size=2, nbest=3)
    with pytest.raises(ValueError, match="audio"):
        decoder.generate({"speech": tokens["audio"]}, {"speech": lengths["audio"]})

    directory = shutil.copytree(make_llm(), tmp_path / "no eos")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(directory)
    with pytest.raises(ValueError, match="EOS"):
        LLMDecoder(str(directory))

    directory = shutil.copytree(make_llm(), tmp_path / "rescaled")
    config = json.loads((directory / "config.json").read_text()) | {"logits_scaling": 8.0}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="logits_scaling"):
        LLMDecoder(str(directory))


def test_sliding_window_is_not_exceeded_silently(make_decoder, media):
    decoder = make_decoder("mistral")
    tokens, lengths = media([240], decoder.embed_size)
    assert decoder.generate(tokens, lengths, beam_size=1, max_new_tokens=2)
    with pytest.raises(ValueError, match="512"):
        decoder.generate(tokens, lengths, beam_size=1, max_new_tokens=60)


def test_out_of_memory_halves_the_batch(make_decoder, media, monkeypatch, caplog):
    decoder = make_decoder()
    tokens, lengths = media([5, 19, 3, 12, 1], decoder.embed_size)
    search = {"beam_size": 3, "max_length_ratio": 1.0}
    expected = decoder.generate(tokens, lengths, **search)
    hidden_states = decoder.hidden_states
    room = 2

    def limited(embeddings, *args, **kwargs):
        if len(embeddings) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return hidden_states(embeddings, *args, **kwargs)

    monkeypatch.setattr(decoder, "hidden_states", limited)
    results = decoder.generate(tokens, lengths, **search)
    assert [h.ids for (h,) in results] == [h.ids for (h,) in expected]
    assert "out of memory with 5 utterances at once: retrying with 3" in caplog.text
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        decoder.generate(tokens, lengths, **search)


def test_generates_under_any_attention(make_decoder, media):
    def without_4d_masks(module, query, key, value, attention_mask, **kwargs):
        assert attention_mask is None or query.size(2) == key.size(2), "not for tree masks"
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    AttentionInterface.register("training_only", without_4d_masks)
    AttentionMaskInterface.register("training_only", sdpa_mask)
    other = make_decoder(attn_implementation="training_only")
    decoder = make_decoder(attn_implementation="eager")
    tokens, lengths = media([7, 12, 3], decoder.embed_size)
    search = {"beam_size": 3, "max_new_tokens": 6}
    for _ in range(2):
        assert [h.ids for (h,) in other.generate(tokens, lengths, **search)] == [
            h.ids for (h,) in decoder.generate(tokens, lengths, **search)
        ]
    assert other.llm.config._attn_implementation == "training_only"


def test_extra_rows_equal_a_resized_vocabulary(make_decoder, make_llm, media):
    decoder = make_decoder("smollm", lora=None, num_extra_rows=5)
    base = len(decoder.tokenizer)
    resized = AutoModelForCausalLM.from_pretrained(make_llm("smollm"))
    resized.resize_token_embeddings(base + 5)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for ours, theirs in (
            (decoder.extra_rows.input, resized.get_input_embeddings().weight),
            (decoder.extra_rows.output, resized.get_output_embeddings().weight),
        ):
            ours.copy_(0.5 * torch.randn(ours.shape, generator=generator))
            theirs[base:] = ours
    ids = torch.tensor([[1, 5, base, base + 4, 7]])
    mask = torch.ones_like(ids)
    logits = decoder.logits(decoder.hidden_states(decoder.embed(ids), mask))
    torch.testing.assert_close(logits, resized(input_ids=ids).logits)

    plain = make_decoder("smollm", lora=None)
    plain.llm = resized
    plain.load_state_dict({"delimiters": decoder.delimiters}, strict=False)
    tokens, lengths = media([7, 12, 3, 9, 5], decoder.embed_size)
    search = {"beam_size": 4, "nbest": 4, "max_new_tokens": 10}
    results = decoder.generate(tokens, lengths, **search)
    assert [[h.ids for h in n] for n in results] == [
        [h.ids for h in n] for n in plain.generate(tokens, lengths, **search)
    ]
    assert max(i for n in results for h in n for i in h.ids) >= base
    saved = decoder.state_dict().keys() - frozen_keys(decoder)
    assert saved == {"delimiters", "extra_rows.input", "extra_rows.output"}
    assert not decoder.extra_rows.input.requires_grad
