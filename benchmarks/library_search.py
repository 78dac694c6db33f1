"""Beam search by Hugging Face's ``generate``, for the decoding benchmark to compare with."""

import torch
from transformers import GenerationConfig


def batches(media, size):
    """Yield batches of tokens and their lengths, both by modality."""
    count = len(media["audio"])
    for start in range(0, count, size):
        chosen = {m: t[start : start + size] for m, t in media.items()}
        yield (
            {m: torch.nn.utils.rnn.pad_sequence(t, batch_first=True) for m, t in chosen.items()},
            {m: torch.tensor([len(x) for x in t]) for m, t in chosen.items()},
        )


def hugging_face(decoder, media, size, beam_size, max_new_tokens):
    """Return the ids of each utterance's best text."""
    config = GenerationConfig(
        num_beams=beam_size,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=decoder.eos_token_id,
        pad_token_id=decoder.eos_token_id,
    )
    decoder.llm.generation_config = GenerationConfig()
    texts = []
    for tokens, lengths in batches(media, size):
        prefixes = [p.flip(0) for p in decoder._prefixes(tokens, lengths)]
        mask = torch.nn.utils.rnn.pad_sequence(
            [torch.ones(len(p), dtype=torch.long, device=p.device) for p in prefixes],
            batch_first=True,
        )
        embeddings = torch.nn.utils.rnn.pad_sequence(prefixes, batch_first=True)
        out = decoder.llm.generate(
            inputs_embeds=embeddings.flip(1).to(decoder.llm.dtype),  # padded on the left
            attention_mask=mask.flip(1),
            generation_config=config,
        )
        for ids in out.tolist():
            end = ids.index(decoder.eos_token_id) if decoder.eos_token_id in ids else len(ids)
            texts.append(ids[:end])
    return texts
