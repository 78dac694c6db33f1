"""The paper's Figure 1: encode, project, decode, and the loss of it all."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.train.abs_espnet_model import AbsESPnetModel
from torch import nn

from espnet_smop.base_model import frozen_keys, saved_with_experiment_keys
from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.frontend.abs_frontend import AbsAVFrontend
from espnet_smop.modality import MODALITIES
from espnet_smop.projector.abs_projector import AbsProjector, ProjectorOutput
from espnet_smop.train.warm_start import CTCWarmStart


class ESPnetAVSRModel(AbsESPnetModel):
    """Llama-SMoP: frozen encoders, a trained projector and an LLM with LoRA.

    A model has the modalities whose frontend is given: ASR, VSR and AVSR are the same code.

    Source: Llama-SMoP (arXiv 2505.14336), Figure 1 and Section 2.

    Args:
        audio_frontend: encoder of waveforms, or None.
        video_frontend: encoder of mouth crops, or None.
        projector: from encoder features to LLM tokens.
        decoder: the LLM.
        ctc_warmup_steps: training steps at the beginning that train the projector alone, by CTC
            against the LLM's embeddings (see ``CTCWarmStart``), from tokens at the embeddings'
            scale; the paper has none.
        reference_masking: treat padding as the public Llama-AVSR code does: padded frames are
            encoded, attended, routed and counted in the auxiliary losses, so that what an
            utterance gets depends on its batch. Only for comparisons with that code; alone, an
            utterance gets the same either way.
    """

    def __init__(
        self,
        *,
        audio_frontend: AbsAVFrontend | None,
        video_frontend: AbsAVFrontend | None,
        projector: AbsProjector,
        decoder: LLMDecoder,
        ctc_warmup_steps: int = 0,
        reference_masking: bool = False,
    ):
        super().__init__()
        self.reference_masking = reference_masking
        frontends = {"audio": audio_frontend, "video": video_frontend}
        self.frontends = nn.ModuleDict({m: f for m, f in frontends.items() if f is not None})
        self.projector = projector
        self.decoder = decoder
        self.warm_start = None
        if ctc_warmup_steps:
            embeddings = decoder.llm.get_input_embeddings().weight
            self.warm_start = CTCWarmStart(ctc_warmup_steps, embeddings)
            projector.init_output_rms(embeddings.detach().float().square().mean().sqrt())

    def forward(
        self,
        text: torch.Tensor,
        text_lengths: torch.Tensor,
        speech: torch.Tensor | None = None,
        speech_lengths: torch.Tensor | None = None,
        video: torch.Tensor | None = None,
        video_lengths: torch.Tensor | None = None,
        speech_feats: torch.Tensor | None = None,
        speech_feats_lengths: torch.Tensor | None = None,
        video_feats: torch.Tensor | None = None,
        video_feats_lengths: torch.Tensor | None = None,
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
            speech_feats: what the audio frontend makes of ``speech``, ``(B, T, D)``, where it was
                computed before; the frontend is not run then.
            speech_feats_lengths: ``(B,)``.
            video_feats: the same of the video frontend, ``(B, T, D)``.
            video_feats_lengths: ``(B,)``.
            kwargs: ignored (``utt_id``).

        Returns:
            The loss, statistics for the reporter, and the number of target tokens: the weight
            that makes gradients of several processes those of the global batch (batches that are
            accumulated count alike).
        """
        cached = {
            "audio": (speech_feats, speech_feats_lengths),
            "video": (video_feats, video_feats_lengths),
        }
        projected = self.project(
            speech,
            speech_lengths,
            video,
            video_lengths,
            cached={m: feats for m, feats in cached.items() if feats[0] is not None},
        )
        if self.training and self.warm_start is not None and not self.warm_start.is_over():
            return self._warm_up(projected, text, text_lengths)
        decoded = self.decoder(projected.tokens, projected.lengths, text, text_lengths)
        loss = decoded.loss + projected.aux_loss
        if self.warm_start is not None:
            loss = loss + zero_touching_all_params(self.warm_start)
        stats = {
            "loss": loss.detach(),
            "loss_ce": decoded.loss.detach(),
            "acc": decoded.accuracy.detach(),
            **projected.stats,
        }
        return force_gatherable((loss, stats, decoded.num_tokens), loss.device)

    def _warm_up(
        self, projected: ProjectorOutput, text: torch.Tensor, text_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Return what ``forward`` does, for a step that leaves the LLM out."""
        embeddings = self.decoder.llm.get_input_embeddings().weight
        ctc = self.warm_start(projected.tokens, projected.lengths, text, text_lengths, embeddings)
        self.warm_start.step += 1
        loss = ctc + projected.aux_loss + zero_touching_all_params(self.decoder)
        stats = {"loss": loss.detach(), "loss_ctc": ctc.detach(), **projected.stats}
        return force_gatherable((loss, stats, text_lengths.sum()), loss.device)

    def project(
        self,
        speech: torch.Tensor | None,
        speech_lengths: torch.Tensor | None,
        video: torch.Tensor | None,
        video_lengths: torch.Tensor | None,
        *,
        cached: Mapping[str, tuple[torch.Tensor, torch.Tensor]] = MappingProxyType({}),
        allow_missing: bool = False,
    ) -> ProjectorOutput:
        """Encode the inputs and map them to LLM tokens; shapes as in :meth:`forward`.

        Args:
            speech: waveforms.
            speech_lengths: in samples.
            video: mouth crops.
            video_lengths: in frames.
            cached: modality → features and their lengths, in place of its frontend's output.
            allow_missing: do with one input where the model has two.

        Raises:
            ValueError: an input that the model needs is not given, or cached features are not of
                the frontend's width or lack the layers that the projector fuses.
        """
        inputs = {"audio": (speech, speech_lengths), "video": (video, video_lengths)}
        features, lengths, layers = {}, {}, {}
        for modality, frontend in self.frontends.items():
            signal, signal_lengths = inputs[modality]
            if modality in cached:
                features[modality], lengths[modality] = cached[modality]
                self._check_cached(modality, features[modality])
                continue
            given = any(inputs[m][0] is not None or m in cached for m in self.frontends)
            if signal is None and allow_missing and given:
                continue
            if signal is None:
                scp, name = MODALITIES[modality].scp, MODALITIES[modality].data_name
                raise ValueError(
                    f"the model has a {modality}_frontend, but the data has no '{name}': give "
                    f"{scp} as name '{name}', or set {modality}_frontend: null"
                )
            if self.reference_masking:
                signal_lengths = torch.full_like(signal_lengths, signal.shape[1])
            if modality in self.projector.needs_layers:
                layers[modality], lengths[modality] = frontend.layers(signal, signal_lengths)
                features[modality] = layers[modality][-1]
            else:
                features[modality], lengths[modality] = frontend(signal, signal_lengths)
        return self.projector(features, lengths, layers)

    @property
    def has_fixed_features(self) -> bool:
        """Whether :meth:`with_features` gives the features that training would compute."""
        trained = any(p.requires_grad for p in self.frontends.parameters())
        return not (trained or self.reference_masking or self.projector.needs_layers)

    @torch.no_grad()
    def with_features(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return a batch of :meth:`forward` with the frontends' features beside their inputs."""
        batch = dict(batch)
        for modality, frontend in self.frontends.items():
            name = MODALITIES[modality].data_name
            if name in batch:
                feats, lengths = frontend(batch[name], batch[f"{name}_lengths"])
                batch[f"{name}_feats"], batch[f"{name}_feats_lengths"] = feats, lengths
        return batch

    def _check_cached(self, modality: str, features: torch.Tensor) -> None:
        width = self.frontends[modality].output_size()
        if features.shape[-1] != width:
            raise ValueError(
                f"cached {modality} features are {features.shape[-1]} wide, but the "
                f"{modality}_frontend's are {width}: make the cache with this frontend"
            )
        if modality in self.projector.needs_layers:
            raise ValueError(
                f"cached {modality} features are of the last layer, but projector_conf.fusion."
                f"{modality} wants all: give '{MODALITIES[modality].data_name}' instead"
            )

    def collect_feats(self, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return nothing: there is no feature normalisation to collect statistics for."""
        return {}

    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of each frozen base model, by part."""
        prints = {}
        for modality, frontend in self.frontends.items():
            for name, value in frontend.fingerprints().items():
                prints[f"{modality}_frontend.{name}"] = value
        for name, value in self.decoder.fingerprints().items():
            prints[f"decoder.{name}"] = value
        return prints

    # What a checkpoint holds

    def state_dict(self, *args, **kwargs) -> dict[str, torch.Tensor]:
        """Return what training may change and its buffers, without the frozen base models."""
        state = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", "")
        for name in frozen_keys(self):
            state.pop(prefix + name, None)
        return state

    def load_state_dict(
        self, state_dict: Mapping[str, torch.Tensor], strict: bool = True, assign: bool = False
    ):
        """Load what :meth:`state_dict` gave.

        The keys are always checked, also where ESPnet asks for ``strict=False`` (inference): a
        projector that silently keeps its random values is never wanted.

        Raises:
            RuntimeError: a key is missing, unexpected or of another shape; they are listed.
        """
        expected = self.state_dict()
        missing = sorted(expected.keys() - state_dict.keys())
        unexpected = sorted(state_dict.keys() - expected.keys())
        mismatched = [
            f"{name} (checkpoint {tuple(value.shape)}, model {tuple(expected[name].shape)})"
            for name, value in sorted(state_dict.items())
            if name in expected and value.shape != expected[name].shape
        ]
        problems = [
            f"{kind}: {_shorten(names)}"
            for kind, names in (
                ("missing", missing),
                ("unexpected", unexpected),
                ("of another shape", mismatched),
            )
            if names
        ]
        if problems:
            raise RuntimeError(
                "the checkpoint does not fit the model, "
                + "; ".join(problems)
                + ". Use the config.yaml that lies beside the checkpoint"
            )
        return super().load_state_dict(state_dict, strict=False, assign=assign)

    # Frozen bases keep the dtype they were loaded in

    def to(self, *args, **kwargs) -> "ESPnetAVSRModel":
        """Move all parts to a device; change the dtype of what is trained only."""
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None:
            super().to(device=device, non_blocking=non_blocking)
        if dtype is not None:
            trained = self.state_dict().keys() - saved_with_experiment_keys(self)
            for name, tensor in [*self.named_parameters(), *self.named_buffers()]:
                if name in trained and tensor.is_floating_point():
                    tensor.data = tensor.data.to(dtype)
        return self


def zero_touching_all_params(module: nn.Module) -> torch.Tensor:
    """Return 0 with gradients 0: distributed training waits for the gradient of every parameter."""
    return 0.0 * sum(p.sum() for p in module.parameters() if p.requires_grad)


def _shorten(names: list[str], limit: int = 8) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
