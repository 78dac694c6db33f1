"""Batched beam search for a causal LM with embeddings as its input.

The rules are those of Hugging Face's ``generate`` (candidates, length normalisation, when an
utterance is done), and so are the results. The layout of the beams differs. There, every beam is a
batch row: the prefix, here hundreds of audio and video tokens, is encoded and stored ``beam_size``
times, and the whole cache is copied whenever beams are reordered. Here an utterance is one row, and
its beams are tokens side by side in that row, separated by the attention mask: the prefix is
encoded and stored once, and reordering moves a mask of booleans. Utterances that are done leave the
batch, and every utterance has its own length limit.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional as F
from transformers import DynamicCache

_NEVER = -math.inf


class LanguageModel(Protocol):
    """The interface of an LLM that the search needs."""

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Map token ids ``(...)`` to input embeddings ``(..., E)``."""

    def hidden_states(
        self,
        embeddings: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor | None = None,
        cache: DynamicCache | None = None,
    ) -> torch.Tensor:
        """Map ``(B, T, E)`` to the last layer's output ``(B, T, E)``."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map ``(..., E)`` to ``(..., V)``."""


@dataclass(frozen=True)
class Beam:
    """A hypothesis: token ids without EOS, score, and whether it ended with EOS.

    The score is the sum of the log probabilities (EOS included) over ``length ** penalty``.
    """

    ids: list[int]
    score: float
    finished: bool


@torch.no_grad()
def beam_search(
    model: LanguageModel,
    prefix: torch.Tensor,
    prefix_lengths: torch.Tensor,
    max_tokens: torch.Tensor,
    *,
    eos: int,
    beam_size: int,
    nbest: int = 1,
    length_penalty: float = 1.0,
    sample: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
    contrast: float = 0.0,
) -> list[list[Beam]]:
    """Find the most probable continuations of each prefix.

    Args:
        model: the LLM.
        prefix: ``(B, P, E)`` embeddings, right-padded; with ``contrast`` ``(2 B, P, E)``, where
            each utterance's prefix is followed by a poor one, with less input.
        prefix_lengths: ``(B,)`` or ``(2 B,)``, number of valid embeddings of each prefix.
        max_tokens: ``(B,)`` maximum number of tokens to generate, EOS included; at least 1.
        eos: id of the token that ends a text.
        beam_size: K; 1 is greedy search.
        nbest: hypotheses to return per utterance, at most ``beam_size``; fewer are returned if
            the vocabulary and the length limit allow no more.
        length_penalty: exponent of the length in the normalised score; 0 turns it off.
        sample: draw the candidates at random, without replacement, instead of taking the best.
            Every utterance sees the same random numbers, so its result does not depend on its
            batch.
        temperature: divides the logits. The score is that of the tempered distribution.
        seed: of the random numbers.
        contrast: α. Above 0, the logits are ``(1 + α) · full - α · poor``, of the two prefixes of
            an utterance: what the poor one also suggests counts less.

    Returns:
        For each utterance ``nbest`` hypotheses, best first.
    """
    device = prefix.device
    rows = 2 if contrast else 1  # R, per utterance in the LLM's batch
    batch, prefix_size = len(prefix) // rows, prefix.size(1)
    limit = int(max_tokens.max())
    k = beam_size
    noise = torch.Generator().manual_seed(seed) if sample else None

    # One row per utterance, (A, ...) with A the number of utterances not yet done.
    utterance = torch.arange(batch, device=device)
    max_tokens = max_tokens.to(device)
    positions = prefix_lengths.to(device).view(batch, rows)
    in_prefix = torch.arange(prefix_size, device=device) < positions[..., None]  # (A, R, P)
    running = torch.zeros(batch, k, limit, dtype=torch.long, device=device)
    running_scores = torch.full((batch, k), _NEVER, device=device)
    running_scores[:, 0] = 0.0  # the first step has one hypothesis, not K equal ones
    # Which of the K·t tokens in the cache are a beam's own past.
    past = torch.zeros(batch, k, k * limit, dtype=torch.bool, device=device)
    # The best complete hypotheses so far: scores, ids, number of tokens, ended by EOS?
    complete = (
        torch.full((batch, k), _NEVER, device=device),
        torch.zeros(batch, k, limit, dtype=torch.long, device=device),
        torch.zeros(batch, k, dtype=torch.long, device=device),
        torch.zeros(batch, k, dtype=torch.bool, device=device),
    )
    is_top = torch.arange(2 * k, device=device) < k
    results: list[list[Beam]] = [[] for _ in range(batch)]

    cache = DynamicCache()
    hidden = model.hidden_states(prefix, in_prefix.flatten(0, 1).long(), cache=cache)
    last = hidden[torch.arange(len(prefix), device=device), positions.flatten() - 1]  # (A R, E)
    hidden = last[:, None]  # (A R, 1, E): all beams are the same so far

    for step in range(limit):
        # a. Candidates: the 2 K best continuations, so that K remain if K of them are EOS.
        logits = _contrasted(model.logits(hidden).float(), contrast)  # (A, 1 or K, V)
        log_probs = F.log_softmax(logits / temperature, dim=-1)
        scores = (running_scores[:, :, None] + log_probs).flatten(1)  # (A, K V)
        vocabulary = log_probs.size(-1)
        candidates = _top(scores, min(2 * k, scores.size(1)), noise)  # (A, 2 K)
        scores = scores.gather(1, candidates)
        parents, tokens = candidates // vocabulary, candidates % vocabulary
        texts = _pick(running, parents)
        texts[:, :, step] = tokens

        # b. Candidates that end now and are among the K best compete with the complete ones.
        is_eos = tokens == eos
        at_limit = max_tokens == step + 1
        ends = is_eos | at_limit[:, None]
        length = step + 1
        ending_scores = (scores / length**length_penalty).masked_fill(
            ~(ends & is_top[: ends.size(1)]), _NEVER
        )
        ending = (ending_scores, texts, torch.full_like(tokens, length), is_eos)
        merged = [torch.cat(pair, dim=1) for pair in zip(complete, ending, strict=True)]
        best = merged[0].topk(k, dim=1).indices
        complete = tuple(_pick(field, best) for field in merged)

        # c. The K best of the others continue.
        order = scores if noise is None else -torch.arange(0.0, ends.size(1), device=device)
        best = order.expand_as(scores).masked_fill(ends, _NEVER).topk(k, dim=1).indices
        running_scores = scores.masked_fill(ends, _NEVER).gather(1, best)
        parents = parents.gather(1, best)
        running = _pick(texts, best)

        # d. Done: no running hypothesis beats the worst of K complete ones. In greedy search the
        # first complete one is the result.
        if k == 1:
            done = complete[0][:, 0] > _NEVER
        else:
            done = running_scores.amax(dim=1) / length**length_penalty <= complete[0].amin(dim=1)
        done = done | at_limit
        going = done.logical_not().nonzero()[:, 0]
        if len(going) < len(utterance):
            for row in done.nonzero()[:, 0].tolist():
                fields = [field[row] for field in complete]
                results[int(utterance[row])] = _beams(*fields, nbest)
            if not len(going):
                break
            fields = (utterance, max_tokens, positions, in_prefix, running, running_scores, past)
            utterance, max_tokens, positions, in_prefix, running, running_scores, past = (
                field[going] for field in fields
            )
            complete = tuple(field[going] for field in complete)
            parents = parents[going]
            going_rows = going[:, None] * rows + torch.arange(rows, device=device)
            cache.batch_select_indices(going_rows.flatten())

        # e. Feed the new tokens. Each sees the prefix, its parent's past and itself.
        if step:
            past = _pick(past, parents)
        new = torch.arange(k, device=device)
        past[:, new, step * k + new] = True
        seen = past[:, None, :, : (step + 1) * k].expand(-1, rows, -1, -1)
        visible = torch.cat([in_prefix[:, :, None].expand(-1, -1, k, -1), seen], dim=-1)
        hidden = model.hidden_states(
            model.embed(running[:, :, step]).repeat_interleave(rows, dim=0),
            visible.flatten(0, 1)[:, None],  # (A R, 1, K, P + K (step + 1))
            positions=(positions + step).flatten()[:, None].expand(-1, k),
            cache=cache,
        )
    return results


def _contrasted(logits: torch.Tensor, contrast: float) -> torch.Tensor:
    """Map the logits ``(A R, K, V)`` of all prefixes to those of the utterances ``(A, K, V)``."""
    if not contrast:
        return logits
    full, poor = logits[0::2], logits[1::2]
    return (1 + contrast) * full - contrast * poor


def _top(scores: torch.Tensor, count: int, noise: torch.Generator | None) -> torch.Tensor:
    """Return indices ``(A, count)`` of the best, or a draw without replacement (Gumbel top-k)."""
    if noise is None:
        return scores.topk(count, dim=1).indices
    uniform = torch.rand(scores.size(1), generator=noise).clamp_min(1e-20)
    gumbel = -torch.log(-torch.log(uniform)).to(scores.device)
    return (scores + gumbel).topk(count, dim=1).indices


def _pick(field: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Select ``(A, M, ...)`` from ``(A, N, ...)`` by ``(A, M)``."""
    rows = torch.arange(len(field), device=field.device)[:, None]
    return field[rows, indices]


def _beams(
    scores: torch.Tensor, ids: torch.Tensor, lengths: torch.Tensor, ended: torch.Tensor, nbest: int
) -> list[Beam]:
    columns = (scores.tolist(), ids.tolist(), lengths.tolist(), ended.tolist())
    return [
        Beam(ids=text[: length - by_eos], score=score, finished=by_eos)
        for score, text, length, by_eos in zip(*columns, strict=True)
        if score > _NEVER
    ][:nbest]
