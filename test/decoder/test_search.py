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
        "max_new_tokens": 12,
    }
    ours = decoder.generate(tokens, lengths, **search)
    ids, scores = hugging_face(decoder, tokens, lengths, **search)
    flat = [h for hypotheses in ours for h in hypotheses]
    assert [h.ids for h in flat] == ids
    if scores:
        torch.testing.assert_close([h.score for h in flat], scores, atol=1e-5, rtol=1e-5)
