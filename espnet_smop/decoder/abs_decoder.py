"""The interface of decoders."""

import contextlib
import inspect
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from espnet2.asr.decoder.abs_decoder import AbsDecoder

from espnet_smop.base_model import fingerprints
from espnet_smop.class_path import suggestion
from espnet_smop.decoder.tokenizer import TextEncoder
from espnet_smop.projector.router import Routing
from espnet_smop.views import View

GENERATION_DEFAULTS = {"beam_size": 15, "nbest": 1, "length_penalty": 0.0, "max_new_tokens": 128}
"""Settings of ``generate`` where neither the caller nor ``inference_conf`` sets any."""


@dataclass
class DecoderOutput:
    """Output of a decoder in training.

    Attributes:
        loss: mean over the target tokens of the batch, a scalar.
        num_tokens: number of target tokens, a scalar.
        stats: name → detached scalar for the reporter.
        aux_loss: weighted sum of the auxiliary losses, a scalar.
        routings: of the LLM's mixtures of adapters, layer by layer; the analysis shows them.
    """

    loss: torch.Tensor
    num_tokens: torch.Tensor
    stats: dict[str, torch.Tensor]
    aux_loss: torch.Tensor | float = 0.0
    routings: list[Routing] = field(default_factory=list)


@dataclass(frozen=True)
class Hypothesis:
    """A transcript found by the search.

    Attributes:
        ids: token ids without EOS.
        text: the ids as text.
        score: sum of log probabilities, EOS included, over ``length ** length_penalty``.
        finished: False if the length limit cut it off, as happens to repetition loops.
    """

    ids: list[int]
    text: str
    score: float
    finished: bool


class AbsAVDecoder(AbsDecoder):
    """A language model that reads audio and video tokens and writes text.

    The task calls a subclass with ``decoder_conf`` as keywords. Options named ``model`` and
    ``dtype`` are treated as those of a frontend (`AbsAVFrontend`), and ``tokenizer`` likewise: a
    package saves the tokenizer and sets it. If the class takes ``prompt`` and none is set, the
    task sets the paper's prompt for the modalities of the model.
    """

    tokenizer: Any
    """The Hugging Face tokenizer of the text."""

    has_routers: bool = False
    """Whether ``forward`` returns routings of its own, which the report then shows."""

    @classmethod
    @abstractmethod
    def text_encoder(cls, conf: Mapping[str, Any]) -> TextEncoder:
        """Return the tokeniser of transcripts, for data loading, without building the decoder.

        Args:
            conf: ``decoder_conf``.
        """

    @property
    @abstractmethod
    def embed_size(self) -> int:
        """Width E of the tokens that the decoder reads."""

    @abstractmethod
    def prompt_length(self, modalities: Collection[str]) -> int:
        """Return the number of an utterance's positions that are neither media tokens nor text.

        They are BOS, prompt and delimiters; token batches count them.

        Args:
            modalities: ``audio``, ``video`` or both.
        """

    def prepare(self, views: Sequence[View]) -> None:
        """Add what the model's views need. Called once, when the model is built."""

    def active(self, view: View) -> contextlib.AbstractContextManager:
        """Return a context in which `forward` and `generate` use a view.

        The default suits a decoder that computes the same for all views.
        """
        return contextlib.nullcontext()

    def repeated(self) -> contextlib.AbstractContextManager:
        """Return a context in which calls of `generate` may share what depends on the weights.

        Weights and active view must not change in it. By default, nothing is shared.
        """
        return contextlib.nullcontext()

    @abstractmethod
    def forward(
        self,
        tokens: dict[str, torch.Tensor],
        token_lengths: dict[str, torch.Tensor],
        text: torch.Tensor,
        text_lengths: torch.Tensor,
    ) -> DecoderOutput:
        """Predict the transcripts.

        Args:
            tokens: modality → ``(B, T', E)``.
            token_lengths: modality → ``(B,)``; 0 where an utterance lacks the modality.
            text: ``(B, L)`` token ids without BOS and EOS; padding may be any number.
            text_lengths: ``(B,)``.
        """

    @abstractmethod
    def generate(
        self, tokens: dict[str, torch.Tensor], token_lengths: dict[str, torch.Tensor], **settings
    ) -> list[list[Hypothesis]]:
        """Transcribe.

        Args:
            tokens: modality → ``(B, T', E)``.
            token_lengths: modality → ``(B,)``; 0 where an utterance lacks the modality.
            settings: ``beam_size``, ``nbest``, ``length_penalty``, ``max_new_tokens`` and any
                other settings in ``inference_conf``.

        Returns:
            For each utterance ``nbest`` hypotheses, best first.
        """

    @classmethod
    def check_generation(cls, settings: Mapping[str, Any]) -> None:
        """Check the settings of `generate` before it is called.

        Raises:
            ValueError: one of them is unknown; the message names the closest known one.
        """
        # Without self, tokens and token_lengths.
        parameters = list(inspect.signature(cls.generate).parameters.values())[3:]
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return
        known = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        for name in settings:
            if name not in known:
                hint = suggestion(name, known)
                if not hint:
                    hint = f". {cls.__name__}.generate takes {', '.join(known) or 'none'}"
                raise ValueError(f"decoding has no setting '{name}'{hint}")

    @property
    def input_embeddings(self) -> torch.Tensor:
        """The embeddings of the text's tokens ``(V, E)``, for the warm start.

        Raises:
            ValueError: the class does not implement it.
        """
        raise ValueError(
            f"{type(self).__name__} does not implement `input_embeddings`, which the warm start "
            "reads: implement it, or leave out model_conf.ctc_warmup_steps"
        )

    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of each frozen base model, by name."""
        return fingerprints(self)
