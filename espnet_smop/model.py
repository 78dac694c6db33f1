"""The paper's Figure 1: encode → project → decode → loss, for each view of a step."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.abs_espnet_model import AbsESPnetModel
from torch import nn

from espnet_smop.decoder.abs_decoder import AbsAVDecoder, DecoderOutput
from espnet_smop.frontend.abs_frontend import AbsAVFrontend
from espnet_smop.modality import MODALITIES
from espnet_smop.projector.abs_projector import AbsProjector, ProjectorOutput
from espnet_smop.train.modality_dropout import ModalityDropout
from espnet_smop.train.warm_start import CTCWarmStart, embedding_rms
from espnet_smop.trained_state import TrainedState
from espnet_smop.view_steps import Views
from espnet_smop.views import View, tasks_of

Encoded = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, list[torch.Tensor]]]
"""By modality: features, their lengths, hidden states of all layers."""


class ESPnetAVSRModel(TrainedState, AbsESPnetModel):
    """Llama-SMoP: frozen encoders, a trained projector and an LLM with LoRA.

    Its modalities are those with a frontend, so ASR, VSR and AVSR share the same code. One model
    may have several tasks and rates, see ``views.py``.

    Source: Llama-SMoP (arXiv 2505.14336), Figure 1 and Section 2.

    Args:
        audio_frontend: encoder of waveforms, or None.
        video_frontend: encoder of mouth crops, or None.
        projector: from encoder features to LLM tokens.
        decoder: the LLM.
        ctc_warmup_steps: train the projector alone for the first steps, by CTC against the LLM's
            embeddings (see ``CTCWarmStart``). Not in the paper.
        tasks: task (``asr``, ``vsr``, ``avsr``) → weight of its loss; None is the one task of the
            frontends given. The total is divided by the number of tasks.
        rate_pairs: for a projector with several rates: ``sample`` one audio and one video rate
            per step, or use ``all`` in every step. Validation uses all.
        modality_dropout: modality → probability that a training utterance lacks it, such as
            ``{audio: 0.25, video: 0.25}`` (see ``ModalityDropout``). Not in the paper.
    """

    def __init__(
        self,
        *,
        audio_frontend: AbsAVFrontend | None,
        video_frontend: AbsAVFrontend | None,
        projector: AbsProjector,
        decoder: AbsAVDecoder,
        ctc_warmup_steps: int = 0,
        tasks: Mapping[str, float] | None = None,
        rate_pairs: str | None = None,
        modality_dropout: Mapping[str, float] | None = None,
    ):
        super().__init__()
        frontends = {"audio": audio_frontend, "video": video_frontend}
        self.frontends = nn.ModuleDict({m: f for m, f in frontends.items() if f is not None})
        self.projector = projector
        self.decoder = decoder
        self.views = Views(tasks_of(tasks, self.frontends), projector.rates, rate_pairs)
        decoder.prepare(self.views.all)
        if modality_dropout and len(self.frontends) < 2:
            raise ValueError("modality_dropout is set, but the model has a single modality")
        self.modality_dropout = ModalityDropout(modality_dropout)
        self.warm_start = None
        if not isinstance(ctc_warmup_steps, int) or ctc_warmup_steps < 0:
            raise ValueError(f"ctc_warmup_steps is {ctc_warmup_steps!r}, expected 0 or more")
        if ctc_warmup_steps:
            self.warm_start = CTCWarmStart(ctc_warmup_steps, decoder)
            projector.init_output_rms(embedding_rms(decoder))

    def forward(
        self,
        text: torch.Tensor,
        text_lengths: torch.Tensor,
        speech: torch.Tensor | None = None,
        speech_lengths: torch.Tensor | None = None,
        video: torch.Tensor | None = None,
        video_lengths: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Compute the training loss of a batch.

        Args:
            text: token ids without BOS and EOS, ``(B, L)``, padded with any value.
            text_lengths: ``(B,)``.
            speech: waveforms ``(B, samples)`` at 16 kHz.
            speech_lengths: ``(B,)``, in samples.
            video: mouth crops ``(B, T, 88, 88)`` at 25 fps.
            video_lengths: ``(B,)``, in frames.
            kwargs: ignored (``utt_id``).

        Returns:
            The loss, statistics for the reporter, and the number of target tokens. Weighted by
            it, the gradients of several processes average to that of the global batch.
        """
        encoded = self.encode(
            speech, speech_lengths, video, video_lengths, modalities=self.views.modalities
        )
        loss, by_view = 0.0, {}
        for view in self.views.next_step() if self.training else self.views.all:
            projected = self.project_encoded(encoded, view)
            decoded = self.decode(projected, text, text_lengths, view)
            view_loss = decoded.loss + decoded.aux_loss + projected.aux_loss
            loss = loss + view.weight * view_loss
            by_view[view] = decoded.stats | projected.stats
        stats = {"loss": loss.detach(), **self.views.statistics(by_view)}
        if self.warm_start is not None:
            self.warm_start.count_step()
        return force_gatherable((loss, stats, decoded.num_tokens), loss.device)

    def encode(
        self,
        speech: torch.Tensor | None,
        speech_lengths: torch.Tensor | None,
        video: torch.Tensor | None,
        video_lengths: torch.Tensor | None,
        *,
        allow_missing: bool = False,
        modalities: Collection[str] | None = None,
    ) -> Encoded:
        """Run the frontends; inputs as in :meth:`forward`.

        Args:
            speech: waveforms.
            speech_lengths: in samples.
            video: mouth crops.
            video_lengths: in frames.
            allow_missing: accept one input for a model with two frontends.
            modalities: whose frontends run; None is all.

        Returns:
            By modality: features ``(B, T, D)``, lengths ``(B,)`` and, where the projector fuses
            layers, the hidden states of all layers, each ``(B, T, D)``.

        Raises:
            ValueError: an input that the model needs is missing.
        """
        inputs = {"audio": (speech, speech_lengths), "video": (video, video_lengths)}
        needed = [m for m in self.frontends if modalities is None or m in modalities]
        inputs = {m: inputs[m] for m in needed if inputs[m][0] is not None}
        missing = [m for m in needed if m not in inputs]
        if missing and not (allow_missing and inputs):
            scp, name = MODALITIES[missing[0]].scp, MODALITIES[missing[0]].data_name
            raise ValueError(
                f"the model has a {missing[0]}_frontend, but the data has no '{name}': give "
                f"{scp} as name '{name}', or set {missing[0]}_frontend: null"
            )
        features, lengths, layers = {}, {}, {}
        for modality in inputs:
            frontend = self.frontends[modality]
            if modality in self.projector.needs_layers:
                layers[modality], lengths[modality] = frontend.layers(*inputs[modality])
                features[modality] = layers[modality][-1]
            else:
                features[modality], lengths[modality] = frontend(*inputs[modality])
        return features, lengths, layers

    def project(
        self,
        speech: torch.Tensor | None = None,
        speech_lengths: torch.Tensor | None = None,
        video: torch.Tensor | None = None,
        video_lengths: torch.Tensor | None = None,
        *,
        allow_missing: bool = False,
        view: View | None = None,
    ) -> ProjectorOutput:
        """Return the LLM's input tokens for a batch, by default of the model's first view.

        Arguments and errors are those of :meth:`encode`, which runs the frontends of the view.
        """
        view = view or self.views.find()
        encoded = self.encode(
            speech,
            speech_lengths,
            video,
            video_lengths,
            allow_missing=allow_missing,
            modalities=view.modalities,
        )
        return self.project_encoded(encoded, view)

    def project_encoded(self, encoded: Encoded, view: View) -> ProjectorOutput:
        """Return the LLM's input tokens for a view, from the output of :meth:`encode`."""
        features, lengths, layers = (
            {m: part[m] for m in view.modalities if m in part} for part in encoded
        )
        if not view.rates:
            return self.projector(features, lengths, layers)
        return self.projector(features, lengths, layers, rates=view.rates)

    def decode(
        self,
        projected: ProjectorOutput,
        text: torch.Tensor,
        text_lengths: torch.Tensor,
        view: View | None = None,
    ) -> DecoderOutput:
        """Return the LLM's loss on the transcripts, or the warm start's loss.

        By default for the model's first view.
        """
        if self.warm_start is None or self.warm_start.is_over():
            projected = self.modality_dropout(projected)
        with self.decoder.active(view or self.views.find()):
            if self.warm_start is not None:
                return self.warm_start(self.decoder, projected, text, text_lengths)
            return self.decoder(projected.tokens, projected.lengths, text, text_lengths)

    def collect_feats(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return nothing: no feature statistics are needed."""
        return {}

    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of each frozen base model, by part."""
        parts = {f"{modality}_frontend": part for modality, part in self.frontends.items()}
        parts |= {"projector": self.projector, "decoder": self.decoder}
        return {
            f"{name}.{base}": value
            for name, part in parts.items()
            for base, value in part.fingerprints().items()
        }
