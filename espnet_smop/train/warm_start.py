"""A start for the projector: CTC between its tokens and the LLM's embeddings.

A projector with random weights shows the LLM nothing that it could read, and cross-entropy through
a frozen LLM takes long to change that. Here the projected tokens themselves are to spell the
text: the frozen input embeddings serve as CTC's output layer, so that tokens that sound like a word
move to where the LLM expects that word. The LLM does not run meanwhile.
"""

import torch
from torch import nn
from torch.nn import functional as F

_CERTAIN = 10.0
"""Logit, in nats, of the token that an embedding itself stands for, at first."""


class CTCWarmStart(nn.Module):
    """CTC loss (Graves et al. 2006) of projected tokens, for the first steps of training.

    Args:
        steps: number of training steps it lasts.
        embeddings: the LLM's input embeddings ``(V, E)``.

    Attributes:
        step: training steps so far; part of the checkpoint, so that a resumed run goes on.
    """

    def __init__(self, steps: int, embeddings: torch.Tensor):
        super().__init__()
        self.steps = steps
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        embeddings = embeddings.detach().float()
        self.blank = nn.Parameter(torch.zeros_like(embeddings[0]))
        # A token that is a word's embedding shall be that word almost for certain
        square = embeddings.square().sum(dim=1).mean()
        self.log_scale = nn.Parameter(torch.log(_CERTAIN / square.clamp_min(1e-8)))

    def is_over(self) -> bool:
        """Return whether all its steps are done."""
        return int(self.step) >= self.steps

    def forward(
        self,
        tokens: dict[str, torch.Tensor],
        lengths: dict[str, torch.Tensor],
        text: torch.Tensor,
        text_lengths: torch.Tensor,
        embeddings: torch.Tensor,
    ) -> torch.Tensor:
        """Return the loss per text token in nats, mean over the modalities.

        Utterances with too few projected tokens to spell their text count as zero.

        Args:
            tokens: modality → ``(B, T', E)``.
            lengths: modality → ``(B,)``.
            text: ``(B, L)`` token ids, padded with anything.
            text_lengths: ``(B,)``.
            embeddings: the LLM's input embeddings ``(V, E)``.
        """
        output = torch.cat([self.blank[None], embeddings.detach().float()])  # blank is 0
        losses = []
        for modality, x in tokens.items():
            with torch.autocast(x.device.type, enabled=False):
                logits = self.log_scale.exp() * (x.float() @ output.T)
            log_probs = F.log_softmax(logits, dim=-1)
            losses.append(
                F.ctc_loss(
                    log_probs.transpose(0, 1), text.clamp_min(0) + 1, lengths[modality],
                    text_lengths, reduction="sum", zero_infinity=True,
                )
            )  # fmt: skip
        return sum(losses) / (len(losses) * text_lengths.sum())
