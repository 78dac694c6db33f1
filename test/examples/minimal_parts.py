"""The least that a decoder and a preprocessor of one's own have to define."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from espnet_smop.decoder.abs_decoder import AbsAVDecoder, DecoderOutput, Hypothesis
from espnet_smop.decoder.tokenizer import TextEncoder
from espnet_smop.train.abs_preprocessor import AbsAVPreprocessor


class GRUDecoder(AbsAVDecoder):
    """A recurrent network that starts from the mean of the media tokens; greedy decoding.

    Args:
        tokenizer: directory or hub id of a Hugging Face tokenizer.
        hidden_size: width E.
    """

    def __init__(self, tokenizer: str, *, hidden_size: int = 16):
        super().__init__()
        self.tokenizer = TextEncoder(tokenizer).tokenizer
        self.embed = nn.Embedding(len(self.tokenizer), hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.output = nn.Linear(hidden_size, len(self.tokenizer))

    @classmethod
    def text_encoder(cls, conf: Mapping[str, Any]) -> TextEncoder:
        return TextEncoder(conf["tokenizer"])

    @property
    def embed_size(self) -> int:
        return self.embed.embedding_dim

    def prompt_length(self, modalities: Collection[str]) -> int:
        return 1

    def forward(self, tokens, token_lengths, text, text_lengths) -> DecoderOutput:
        eos = text.new_tensor([self.tokenizer.eos_token_id])
        rows = [ids[:n] for ids, n in zip(text, text_lengths.tolist(), strict=True)]
        inputs = pad_sequence([torch.cat([eos, ids]) for ids in rows], batch_first=True)
        targets = torch.cat([torch.cat([ids, eos]) for ids in rows])
        hidden, _ = self.gru(self.embed(inputs), self._start(tokens, token_lengths))
        inside = torch.arange(inputs.shape[1], device=text.device) <= text_lengths[:, None]
        logits = self.output(hidden[inside])
        loss = nn.functional.cross_entropy(logits, targets)
        accuracy = (logits.argmax(-1) == targets).float().mean()
        return DecoderOutput(loss, text.new_tensor(len(targets)), {"acc": accuracy.detach()})

    def generate(self, tokens, token_lengths, *, max_new_tokens, **settings):
        state = self._start(tokens, token_lengths)
        eos = self.tokenizer.eos_token_id
        ids = [torch.full((state.shape[1], 1), eos, device=state.device)]
        scores = 0.0
        for _ in range(max_new_tokens):
            hidden, state = self.gru(self.embed(ids[-1]), state)
            best = self.output(hidden).log_softmax(-1).max(-1)
            ids.append(best.indices)
            scores = scores + best.values[:, 0]
        results = []
        for row, score in zip(torch.cat(ids[1:], dim=1).tolist(), scores.tolist(), strict=True):
            finished = eos in row
            row = row[: row.index(eos)] if finished else row
            results.append([Hypothesis(row, self.tokenizer.decode(row).strip(), score, finished)])
        return results

    def _start(self, tokens, lengths) -> torch.Tensor:
        means = [x.sum(1) / lengths[m].clamp_min(1)[:, None] for m, x in tokens.items()]
        return (sum(means) / math.sqrt(len(means)))[None]


class PlainPreprocessor(AbsAVPreprocessor):
    """No augmentation; text in lower case."""

    def __init__(self, train: bool, encode_text, *, scale: float = 1.0):
        super().__init__(train)
        self.encode_text = encode_text
        self.scale = scale

    def __call__(self, uid: str, data: dict[str, str | np.ndarray]) -> dict[str, np.ndarray]:
        out = dict(data)
        if "speech" in data:
            out["speech"] = data["speech"].astype(np.float32) * self.scale
        if "video" in data:
            out["video"] = data["video"][:, 4:92, 4:92].astype(np.float32) / 255
        if "text" in data:
            out["text"] = np.asarray(self.encode_text(data["text"].lower()), dtype=np.int64)
        return out
