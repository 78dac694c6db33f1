"""Warm start of the projector: CTC between its tokens and the LLM's embeddings.

The tokens of an untrained projector mean nothing to the LLM, and cross-entropy through a frozen
LLM takes long to change that. During the warm start, CTC trains the projected tokens themselves to
spell the text: the LLM's frozen input embeddings are its output layer, so that the tokens of a word
move close to that word's embeddings. The LLM does not run meanwhile, not even in validation.
"""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional as F

from espnet_smop.decoder.abs_decoder import AbsAVDecoder, DecoderOutput
from espnet_smop.projector.abs_projector import ProjectorOutput

_CERTAIN = 20.0
"""Initial logit, in nats, of an embedding for its own token."""


class CTCWarmStart(nn.Module):
    """Replaces the decoder's loss by CTC (Graves et al. 2006) for the first steps of training.

    Args:
        steps: number of training steps.
        decoder: of the model; only its embeddings are used here.

    Attributes:
        step: training steps so far; part of the checkpoint, so that a resumed training continues.
        vocabulary: sorted token ids ``(U,)`` that CTC chooses from; None: all of the LLM's.
    """

    def __init__(self, steps: int, decoder: AbsAVDecoder):
        super().__init__()
        self.steps = steps
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.register_buffer("vocabulary", None, persistent=False)
        embeddings = _embeddings(decoder)
        self.blank = nn.Parameter(torch.zeros_like(embeddings[0]))
        square = embeddings.square().sum(dim=1).mean()
        self.log_scale = nn.Parameter(torch.log(_CERTAIN / square.clamp_min(1e-8)))

    def restrict_to(self, tokens: Iterable[int]) -> None:
        """Restrict CTC to these tokens.

        An LLM has many more tokens than the transcripts of a corpus use, and the output layer is
        most of what the warm start computes.

        Args:
            tokens: all ids in the transcripts of training and validation.
        """
        self.vocabulary = torch.tensor(sorted(set(tokens)), device=self.step.device)

    def is_over(self) -> bool:
        """Return whether all steps are done."""
        return int(self.step) >= self.steps

    def count_step(self) -> None:
        """Count a training step, after all of its views."""
        if self.training and not self.is_over():
            self.step += 1

    def forward(
        self,
        decoder: AbsAVDecoder,
        projected: ProjectorOutput,
        text: torch.Tensor,
        text_lengths: torch.Tensor,
    ) -> DecoderOutput:
        """Return the CTC loss during the warm start, otherwise the decoder's.

        In validation ``acc``, the LLM's accuracy, is 0 during the warm start, so that none of its
        epochs becomes the best one.

        Args:
            decoder: of the model.
            projected: tokens ``(B, T', E)`` and lengths ``(B,)`` by modality.
            text: ``(B, L)`` token ids, padded with any value.
            text_lengths: ``(B,)``.
        """
        if self.is_over():
            decoded = decoder(projected.tokens, projected.lengths, text, text_lengths)
            if self.training:
                decoded.loss = decoded.loss + zero_touching_all_params(self)
            return decoded
        loss = self.ctc(
            projected.tokens, projected.lengths, text, text_lengths, decoder.input_embeddings
        )
        stats = {"loss_ctc": loss.detach()}
        if self.training:
            loss = loss + zero_touching_all_params(decoder)
        else:
            stats["acc"] = torch.zeros_like(loss)
        return DecoderOutput(loss=loss, num_tokens=text_lengths.sum(), stats=stats)

    def ctc(
        self,
        tokens: dict[str, torch.Tensor],
        lengths: dict[str, torch.Tensor],
        text: torch.Tensor,
        text_lengths: torch.Tensor,
        embeddings: torch.Tensor,
    ) -> torch.Tensor:
        """Return the loss per text token in nats, mean over the modalities.

        Utterances with too few projected tokens to spell their text count as zero. Texts with a
        token beyond ``vocabulary`` are spelled with all embeddings.

        Args:
            tokens: modality → ``(B, T', E)``.
            lengths: modality → ``(B,)``.
            text: ``(B, L)`` token ids, padded with any value.
            text_lengths: ``(B,)``.
            embeddings: of the V tokens, ``(V, E)``.
        """
        padding = torch.arange(text.size(1), device=text.device) >= text_lengths[:, None]
        text = text.masked_fill(padding, 0)
        if self.vocabulary is not None:
            index = torch.searchsorted(self.vocabulary, text).clamp_max(len(self.vocabulary) - 1)
            if (padding | (self.vocabulary[index] == text)).all():
                text, embeddings = index, embeddings[self.vocabulary]  # U instead of V classes
        # (1 + V, E), the blank is class 0
        output = torch.cat([self.blank[None], embeddings.detach().float()])
        losses = []
        for modality, x in tokens.items():
            with torch.autocast(x.device.type, enabled=False):
                logits = self.log_scale.exp() * (x.float() @ output.T)  # (B, T', 1 + V)
            log_probs = F.log_softmax(logits, dim=-1)
            losses.append(
                F.ctc_loss(
                    log_probs.transpose(0, 1), text + 1, lengths[modality],
                    text_lengths, reduction="sum", zero_infinity=True,
                )
            )  # fmt: skip
        return sum(losses) / (len(losses) * text_lengths.sum())


def embedding_rms(decoder: AbsAVDecoder) -> torch.Tensor:
    """Return the root mean square of the LLM's input embeddings, a scalar."""
    return _embeddings(decoder).square().mean().sqrt()


def zero_touching_all_params(module: nn.Module) -> torch.Tensor:
    """Return 0 with gradients 0: distributed training waits for the gradient of every parameter."""
    return 0.0 * sum(p.sum() for p in module.parameters() if p.requires_grad)


def _embeddings(decoder: AbsAVDecoder) -> torch.Tensor:
    return decoder.input_embeddings.detach().float()
