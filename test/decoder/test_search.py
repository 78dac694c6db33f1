import pytest
import torch
from transformers import GenerationConfig

from espnet_smop.decoder.llm import LLMDecoder


def left_padded(prefixes):
    size = max(map(len, prefixes))
    embeddings = torch.stack(
        [torch.cat([p.new_full((size - len(p), p.size(1)), 7.0), p]) for p in prefixes]
    )
    mask = torch.tensor([[0] * (size - len(p)) + [1] * len(p) for p in prefixes])
    return embeddings, mask


def hugging_face(decoder, tokens, lengths, *, beam_size, nbest, length_penalty, max_new_tokens):
    """Ids (without EOS) and scores from ``generate`` of the library."""
    embeddings, mask = left_padded(decoder._prefixes(tokens, lengths))
    config = GenerationConfig(
        num_beams=beam_size,
        num_return_sequences=nbest,
        length_penalty=length_penalty,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        repetition_penalty=1.0,
        temperature=1.0,
        top_p=1.0,
        eos_token_id=decoder.eos_token_id,
        pad_token_id=decoder.eos_token_id,
        return_dict_in_generate=True,
        output_scores=True,
    )
    decoder.llm.generation_config = config  # otherwise unset values come from the model's
    out = decoder.llm.generate(
        inputs_embeds=embeddings, attention_mask=mask, generation_config=config
    )
    ids = [
        row[: row.index(decoder.eos_token_id)] if decoder.eos_token_id in row else row
        for row in out.sequences.tolist()
    ]
    scores = None if beam_size == 1 else out.sequences_scores.tolist()
    return ids, scores


@pytest.mark.parametrize("architecture", ["llama3", "smollm", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize(
    "beam_size, nbest, length_penalty", [(1, 1, 1.0), (3, 3, 1.0), (4, 1, 0.0), (15, 4, 0.6)]
)
def test_equals_hugging_face(make_llm, media, architecture, beam_size, nbest, length_penalty):
    torch.manual_seed(0)
    decoder = LLMDecoder(make_llm(architecture), lora=None)
    tokens, lengths = media([9, 4, 13, 6, 2, 11], decoder.embed_size, seed=beam_size)
    search = {
        "beam_size": beam_size,
        "nbest": nbest,
        "length_penalty": length_penalty,
        "max_new_tokens": 24,
    }
    ours = decoder.generate(tokens, lengths, **search)
    ids, scores = hugging_face(decoder, tokens, lengths, **search)
    flat = [h for hypotheses in ours for h in hypotheses]
    assert len({len(h.ids) for h in flat}) > 1
    assert all(h.finished == (len(h.ids) < 24) for h in flat)
    assert [h.ids for h in flat] == ids
    if scores:
        torch.testing.assert_close([h.score for h in flat], scores, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ["llama3", "mistral", "qwen3"])
@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("beam_size", [1, 4, 15])
def test_batch_invariance(make_llm, media, architecture, sample, beam_size):
    torch.manual_seed(0)
    decoder = LLMDecoder(make_llm(architecture), lora=None)
    tokens, lengths = media([5, 19, 3, 12, 1], decoder.embed_size)
    search = {"beam_size": beam_size, "nbest": min(beam_size, 3), "sample": sample}
    search |= {"max_length_ratio": 1.2}
    together = decoder.generate(tokens, lengths, **search)
    for b, expected in enumerate(together):
        one = {m: t[b : b + 1, : lengths[m][b]] for m, t in tokens.items()}
        (alone,) = decoder.generate(one, {m: n[b : b + 1] for m, n in lengths.items()}, **search)
        assert [h.ids for h in alone] == [h.ids for h in expected]
        torch.testing.assert_close(
            [h.score for h in alone], [h.score for h in expected], atol=1e-5, rtol=1e-5
        )


def test_limits_count_tokens_of_the_longer_modality(make_llm, media):
    decoder = LLMDecoder(make_llm(), lora=None)
    decoder.eos_token_id = len(decoder.tokenizer) - 1  # hardly ever said
    tokens, lengths = media([2, 9, 30], decoder.embed_size)  # of audio; one more of video
    search = {"beam_size": 2, "max_new_tokens": 12}
    results = decoder.generate(tokens, lengths, max_length_ratio=0.5, **search)
    assert [len(h.ids) for (h,) in results] == [2, 5, 12]
    assert not any(h.finished for (h,) in results)


def test_sampling(make_llm, media):
    decoder = LLMDecoder(make_llm(), lora=None)
    tokens, lengths = media([9, 4], decoder.embed_size)

    def texts(**search):
        results = decoder.generate(tokens, lengths, sample=True, max_new_tokens=8, **search)
        return [h.ids for (h,) in results]

    greedy = [h.ids for (h,) in decoder.generate(tokens, lengths, beam_size=1, max_new_tokens=8)]
    assert texts(beam_size=1, seed=1) == texts(beam_size=1, seed=1)
    assert texts(beam_size=1, seed=1) != texts(beam_size=1, seed=2)
    assert texts(beam_size=1, temperature=1e-3) == greedy


def test_sampling_follows_the_distribution(make_llm, media):
    torch.manual_seed(0)
    decoder = LLMDecoder(make_llm(), lora=None)
    tokens, lengths = media([6], decoder.embed_size)
    (prefix,) = decoder._prefixes(tokens, lengths)
    hidden = decoder.hidden_states(prefix[None], torch.ones(1, len(prefix), dtype=torch.long))
    expected = (decoder.logits(hidden[0, -1]) / 2.0).softmax(dim=-1)
    search = {"beam_size": 1, "max_new_tokens": 1, "sample": True, "temperature": 2.0}
    drawn = [decoder.generate(tokens, lengths, seed=i, **search)[0][0].ids for i in range(300)]
    counts = torch.zeros_like(expected)
    for ids in drawn:
        counts[ids[0] if ids else decoder.eos_token_id] += 1
    # Total variation: about 0.1 by chance, 0.5 from the greedy or the untempered distribution.
    assert 0.5 * (counts / 300 - expected).abs().sum() < 0.2


def test_wide_beam_finds_the_best_of_all_texts(make_llm, media):
    torch.manual_seed(0)
    decoder = LLMDecoder(make_llm(), lora=None)
    vocabulary, eos = decoder.llm.config.vocab_size, decoder.eos_token_id
    tokens, lengths = media([6], decoder.embed_size)
    (prefix,) = decoder._prefixes(tokens, lengths)
    every = decoder.embed(torch.arange(vocabulary))[:, None]
    embeddings = torch.cat([prefix[None].expand(vocabulary, -1, -1), every], dim=1)
    mask = torch.ones(embeddings.shape[:2], dtype=torch.long)
    hidden = decoder.hidden_states(embeddings, mask)[:, -2:]
    first, second = decoder.logits(hidden).detach().log_softmax(dim=-1).unbind(dim=1)
    of_two = ((first[0][:, None] + second) / 2).tolist()
    scores = {(a, b): x for a, row in enumerate(of_two) for b, x in enumerate(row) if a != eos}
    scores[(eos,)] = first[0, eos].item()
    best = sorted(scores, key=scores.get, reverse=True)[:20]

    # More hypotheses than there are first tokens
    search = {"beam_size": 4 * vocabulary, "nbest": 4 * vocabulary, "length_penalty": 1.0}
    (hypotheses,) = decoder.generate(tokens, lengths, max_new_tokens=2, **search)
    assert [h.ids for h in hypotheses[:20]] == [[i for i in ids if i != eos] for ids in best]
    torch.testing.assert_close(
        [h.score for h in hypotheses[:20]], [scores[b] for b in best], atol=1e-5, rtol=1e-5
    )
    (hypotheses,) = decoder.generate(tokens, lengths, max_new_tokens=1, **search)
    assert len({tuple(h.ids) for h in hypotheses}) == len(hypotheses) == vocabulary


def naive_contrast(decoder, tokens, lengths, alpha, limit):
    """Greedy search with two passes over everything for each token, one utterance."""
    single = {m: t[:, : lengths[m][0]] for m, t in tokens.items()}
    (full,) = decoder._prefixes(single, lengths)
    (poor,) = decoder._prefixes({"audio": single["audio"]}, lengths)
    ids, score = [], 0.0
    for _ in range(limit):
        logits = []
        for prefix in (full, poor):
            x = torch.cat([prefix, decoder.embed(torch.tensor(ids, dtype=torch.long))])[None]
            logits.append(decoder.llm(inputs_embeds=x).logits[0, -1])
        log_probs = ((1 + alpha) * logits[0] - alpha * logits[1]).log_softmax(-1)
        best = int(log_probs.argmax())
        score += float(log_probs[best])
        if best == decoder.eos_token_id:
            return ids, score
        ids.append(best)
    return ids, score


@torch.no_grad()
@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_contrast_equals_two_passes(make_llm, media, alpha):
    torch.manual_seed(0)
    decoder = LLMDecoder(make_llm(), lora=None)
    tokens, lengths = media([9, 4, 13, 6, 2, 11], decoder.embed_size)
    search = {"beam_size": 1, "max_new_tokens": 16}
    plain = decoder.generate(tokens, lengths, **search)
    results = decoder.generate(tokens, lengths, contrast=alpha, **search)
    assert [h.ids for (h,) in results] != [h.ids for (h,) in plain]
    assert len({len(h.ids) for (h,) in results}) > 1
    for b, (found,) in enumerate(results):
        one = {m: t[b : b + 1] for m, t in tokens.items()}
        length = {m: n[b : b + 1] for m, n in lengths.items()}
        ids, score = naive_contrast(decoder, one, length, alpha, 16)
        assert found.ids == ids
        assert found.score == pytest.approx(score, abs=1e-3)


def test_contrast_with_beams_does_not_depend_on_the_batch(make_llm, media):
    torch.manual_seed(0)
    decoder = LLMDecoder(make_llm(), lora=None)
    tokens, lengths = media([5, 19, 3, 12, 1], decoder.embed_size)
    search = {"beam_size": 4, "nbest": 3, "contrast": 0.5, "max_length_ratio": 1.2}
    together = decoder.generate(tokens, lengths, **search)
    for b, expected in enumerate(together):
        one = {m: t[b : b + 1, : lengths[m][b]] for m, t in tokens.items()}
        (alone,) = decoder.generate(one, {m: n[b : b + 1] for m, n in lengths.items()}, **search)
        assert [h.ids for h in alone] == [h.ids for h in expected]
        torch.testing.assert_close(
            [h.score for h in alone], [h.score for h in expected], atol=1e-4, rtol=1e-5
        )


def test_contrast_has_no_effect_on_one_modality(make_llm, media):
    decoder = LLMDecoder(make_llm(), lora=None)
    for modality in ("audio", "video"):
        tokens, lengths = media([9, 4], decoder.embed_size, (modality,))
        search = {"beam_size": 2, "max_new_tokens": 8}
        plain = decoder.generate(tokens, lengths, **search)
        assert decoder.generate(tokens, lengths, contrast=0.5, **search) == plain


def test_a_negative_contrast_is_refused():
    with pytest.raises(ValueError, match="contrast is -0.5, expected a number of at least 0"):
        LLMDecoder.check_generation({"contrast": -0.5})


def test_the_first_step_runs_the_output_layer_once_per_utterance(make_llm, media):
    decoder = LLMDecoder(make_llm("llama3"), lora=None)
    tokens, lengths = media([9, 4, 6], decoder.embed_size)
    rows = []
    decoder.llm.lm_head.register_forward_pre_hook(lambda _, x: rows.append(x[0].shape[:-1].numel()))
    decoder.generate(tokens, lengths, beam_size=5, max_new_tokens=3)
    assert rows[0] == 3 and rows[1] == 3 * 5
