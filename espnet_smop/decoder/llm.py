"""The LLM that reads audio and video tokens and writes text."""

import contextlib
import contextvars
import inspect
import json
import logging
import math
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    PreTrainedModel,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast

from espnet_smop.base_model import (
    BaseModelError,
    base_dtype,
    fingerprint,
    freeze,
    on_meta,
    vocabulary_fingerprint,
)
from espnet_smop.compiled import compile_layers
from espnet_smop.decoder import four_bit
from espnet_smop.decoder.abs_decoder import (
    GENERATION_DEFAULTS,
    AbsAVDecoder,
    DecoderOutput,
    Hypothesis,
)
from espnet_smop.decoder.adapters import ActiveView, LoRAPerView
from espnet_smop.decoder.merged_lora import merged_lora
from espnet_smop.decoder.mome import MoME
from espnet_smop.decoder.prompt import choose_prompt, prompt_ids
from espnet_smop.decoder.search import beam_search
from espnet_smop.decoder.sink_loss import sink_loss
from espnet_smop.decoder.tokenizer import TextEncoder, load_tokenizer, locate_llm
from espnet_smop.lora import inject_lora
from espnet_smop.modality import MODALITIES
from espnet_smop.views import View

LORA = {"r": 64, "alpha": 8, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
"""The paper's adapters for an LLM of width 2,048: rank, scale (``alpha / r``), layers."""


class LLMDecoder(AbsAVDecoder):
    """A frozen causal LM with LoRA, conditioned on audio and video tokens.

    The sequence is ``[BOS] <audio> A </audio> <video> V </video> prompt text [EOS]``, with the
    modalities that are present. The four delimiters are embeddings of this module, so that the
    LLM's vocabulary does not change.

    Args:
        model: a local directory, a hub id, or a ``.gguf`` file of a Llama-like causal LM
            (Llama, TinyLlama, SmolLM2, Mistral, Qwen2, Qwen3, …).
        lora: ``r``, ``alpha`` (scale ``alpha / r``), ``dropout`` and ``target_modules`` of the
            adapters, with defaults in ``LORA``; None adds no adapters. For a model with several
            views also ``per``: ``task`` or ``rates`` gives each its own adapters instead of one
            for all (``null``); ``shared: true`` adds a shared one to them.
        mome: settings of the mixtures of bottleneck adapters in the layers, see ``MoME``, with
            defaults in ``MOME``; None adds none.
        sink_loss_weight: weight of ``sink_loss`` between BOS and the media and prompt tokens, in
            the outputs of all layers but the last; 1.0e4 in its paper. 0 disables it.
        prompt: the instruction, or task → instruction; None is the paper's prompt for the
            modalities given.
        train_delimiters: train the delimiters' embeddings.
        chat_template: put media and prompt into the tokenizer's chat template.
        attn_implementation: as in Hugging Face (``sdpa``, ``eager``, ``flash_attention_2``, …);
            None is its default. Generation needs masks that only ``sdpa`` and ``eager`` support,
            and replaces others with ``sdpa``.
        dtype: of the frozen weights (``bfloat16``, ``float16``, ``float32``); None is bfloat16
            where CUDA is available and float32 elsewhere. Trained parameters are float32.
        quantize: ``nf4`` stores the layers' frozen weights in four bits and computes in ``dtype``;
            needs bitsandbytes. Trained parameters, checkpoints and fingerprint are the same as
            without quantisation.
        gradient_checkpointing: recompute each layer in the backward pass to save memory.
        compile: run the layers through ``torch.compile`` in training.
        gguf_file: name of a GGUF file inside ``model``; its weights are dequantised.
        tokenizer: directory or hub id of the tokenizer; default: the tokenizer in ``model``.
        num_extra_rows: number of tokens that an imported model added to the LLM's vocabulary. They
            take part in the softmax and have an input embedding; see ``ExtraRows``.
    """

    def __init__(
        self,
        model: str,
        *,
        lora: dict[str, Any] | None = LORA,
        mome: dict[str, Any] | None = None,
        sink_loss_weight: float = 0.0,
        prompt: str | Mapping[str, str] | None = "Transcribe speech and video to text.",
        train_delimiters: bool = True,
        chat_template: bool = False,
        attn_implementation: str | None = None,
        dtype: str | None = None,
        quantize: str | None = None,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        gguf_file: str | None = None,
        tokenizer: str | None = None,
        num_extra_rows: int = 0,
    ):
        super().__init__()
        if sink_loss_weight < 0:
            raise ValueError(f"sink_loss_weight is {sink_loss_weight}, expected at least 0")
        if prompt is not None and not isinstance(prompt, str | Mapping):
            raise ValueError(
                f"prompt is {prompt!r}, expected a string, one for each task, or null for the "
                "paper's"
            )
        four_bit.check_format(quantize)
        self.llm, self.tokenizer = _load(model, gguf_file, attn_implementation, dtype, tokenizer)
        # transformers is renaming it: 5.40 drops the old name
        renamed = "cache" in inspect.signature(self.llm.base_model.forward).parameters
        self._cache_option = "cache" if renamed else "past_key_values"
        self.eos_token_id = self.tokenizer.eos_token_id
        if self.eos_token_id is None:
            raise ValueError(f"the tokenizer of '{model}' has no EOS token to end a text with")
        self.sink_loss_weight = sink_loss_weight
        if sink_loss_weight and self.llm.config.num_hidden_layers < 2:
            raise ValueError(f"sink_loss_weight is {sink_loss_weight}, but the LLM has one layer")
        self.prompt = prompt
        self.chat_template = chat_template
        self._prompt_ids(MODALITIES)  # fail now rather than in the first batch

        freeze(self.llm)
        self._fingerprints = {
            "llm": fingerprint(self.llm),
            "tokenizer": vocabulary_fingerprint(self.tokenizer.get_vocab()),
        }
        if quantize is not None and not on_meta():
            four_bit.quantize(self.llm)
        if compile:
            # Validation and generation do without gradients.
            compile_layers(_layers(self.llm), when=torch.is_grad_enabled)
        self.active_view, self.needs_view = ActiveView(), False
        if gradient_checkpointing:
            _checkpoint_layers(self.llm, self.active_view)
        if isinstance(lora, Mapping):
            lora = {**LORA, **lora}
            per, shared = lora.pop("per", None), lora.pop("shared", False)
            self.needs_view = per is not None
            if self.needs_view:
                views_lora = LoRAPerView(self.llm, lora, per=per, shared=shared)
                self.active_view.adapters.append(views_lora)
                lora = None
        if lora is not None:
            inject_lora(self.llm, lora)
        self.mome = None
        if mome is not None:
            self.mome = MoME.of(mome, _layers(self.llm), self.embed_size)
            self.active_view.adapters.append(self.mome)
            self.needs_view |= self.mome.needs_view

        table = self.llm.get_input_embeddings().weight
        _check_vocabulary(self.tokenizer, len(table) + num_extra_rows, model)
        self.delimiters = nn.Parameter(_like_rows_of(table, 4), requires_grad=train_delimiters)
        self.extra_rows = ExtraRows(num_extra_rows, table) if num_extra_rows else None

    @classmethod
    def text_encoder(cls, conf: Mapping[str, Any]) -> TextEncoder:
        """See ``AbsAVDecoder``."""
        return TextEncoder(
            conf["model"], gguf_file=conf.get("gguf_file"), tokenizer=conf.get("tokenizer")
        )

    @property
    def embed_size(self) -> int:
        """E, the width of the LLM's embeddings."""
        return self.llm.get_input_embeddings().embedding_dim

    @property
    def has_routers(self) -> bool:
        """See ``AbsAVDecoder``."""
        return self.mome is not None

    @property
    def input_embeddings(self) -> torch.Tensor:
        """The LLM's input embeddings ``(V, E)``."""
        return self.llm.get_input_embeddings().weight

    def prompt_length(self, modalities: Collection[str]) -> int:
        """See ``AbsAVDecoder``."""
        delimiters = 2 * len(modalities)
        return delimiters + sum(map(len, self._prompt_ids(tuple(modalities))))

    def prepare(self, views: Sequence[View]) -> None:
        """See ``AbsAVDecoder``."""
        for adapters in self.active_view.adapters:
            adapters.prepare(views)

    def active(self, view: View) -> AbstractContextManager:
        """See ``AbsAVDecoder``: choose the adapters of a view."""
        return self.active_view(view)

    def repeated(self) -> AbstractContextManager:
        """See ``AbsAVDecoder``: adapters are merged once."""
        return merged_lora(self.llm)

    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprints of the frozen LLM and of its tokenizer."""
        return dict(self._fingerprints)

    def encode_text(self, text: str) -> list[int]:
        """Tokenise a transcript, without BOS and EOS."""
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def decode_ids(self, ids: list[int]) -> str:
        """Turn token ids into text, without special tokens and rows that have no token."""
        known = [i for i in ids if i < len(self.tokenizer)]
        return self.tokenizer.decode(
            known, skip_special_tokens=True, clean_up_tokenization_spaces=False
        ).strip()

    def forward(
        self,
        tokens: dict[str, torch.Tensor],
        token_lengths: dict[str, torch.Tensor],
        text: torch.Tensor,
        text_lengths: torch.Tensor,
    ) -> DecoderOutput:
        """Predict the transcripts; see ``AbsAVDecoder``.

        Returns:
            The cross-entropy in nats, mean over the text and EOS tokens of the batch, and their
            number; statistics: ``loss_ce``, and ``acc``, the token accuracy.
        """
        texts = [ids[:n] for ids, n in zip(text, text_lengths.tolist(), strict=True)]
        sequences = [
            torch.cat([prefix, self.embed(ids)])
            for prefix, ids in zip(self._prefixes(tokens, token_lengths), texts, strict=True)
        ]
        # A text of n tokens is predicted, with EOS, at the last n + 1 positions; EOS is not fed.
        lengths = torch.tensor([len(s) for s in sequences], device=text.device)  # (B,)
        embeddings = pad_sequence(sequences, batch_first=True)  # (B, S, E)
        index = torch.arange(embeddings.size(1), device=text.device)
        valid = index < lengths[:, None]  # (B, S)
        predicting = valid & (index >= (lengths - text_lengths - 1)[:, None])
        eos = text.new_tensor([self.eos_token_id])
        targets = torch.cat([torch.cat([ids, eos]) for ids in texts])  # (N,)

        recording = contextlib.nullcontext([]) if self.mome is None else self.mome.recording(valid)
        with recording as routings:
            output = self._run(
                embeddings, valid.long(), output_hidden_states=self.sink_loss_weight > 0
            )
        hidden = output.last_hidden_state[predicting]
        logits = self.logits(hidden).float()  # (N, V), only where there is a target
        loss = F.cross_entropy(logits, targets)
        accuracy = (logits.detach().argmax(dim=-1) == targets).float().mean()
        out = DecoderOutput(
            loss=loss,
            num_tokens=lengths.new_tensor(len(targets)),
            stats={"loss_ce": loss.detach(), "acc": accuracy},
            routings=[*routings],  # recomputed layers extend the original
        )
        if self.mome is not None:
            balance = self.mome.balance(routings)
            out.aux_loss = out.aux_loss + self.mome.load_balancing_weight * balance
            out.stats["loss_mome_balance"] = balance.detach()
        if self.sink_loss_weight > 0:
            before_text = (index > 0) & (index < (lengths - text_lengths)[:, None])
            sink = sink_loss(output.hidden_states[1:-1], before_text)
            out.aux_loss = out.aux_loss + self.sink_loss_weight * sink
            out.stats["loss_sink"] = sink.detach()
        return out

    @torch.no_grad()
    def generate(
        self,
        tokens: dict[str, torch.Tensor],
        token_lengths: dict[str, torch.Tensor],
        *,
        beam_size: int = GENERATION_DEFAULTS["beam_size"],
        nbest: int = GENERATION_DEFAULTS["nbest"],
        length_penalty: float = GENERATION_DEFAULTS["length_penalty"],
        max_new_tokens: int = GENERATION_DEFAULTS["max_new_tokens"],
        max_length_ratio: float | None = None,
        sample: bool = False,
        temperature: float = 1.0,
        seed: int = 0,
        contrast: float = 0.0,
    ) -> list[list[Hypothesis]]:
        """Transcribe by beam search, by default with ``GENERATION_DEFAULTS``; see ``AbsAVDecoder``.

        The LLM's ``generation_config.json`` is ignored. A batch that runs out of the accelerator's
        memory is split in half and retried.

        Args:
            tokens: modality → ``(B, T', E)``.
            token_lengths: modality → ``(B,)``.
            beam_size: 1 is greedy search.
            nbest: hypotheses to return per utterance.
            length_penalty: exponent of the length in the score; above 0 favours long texts.
            max_new_tokens: length limit, EOS included.
            max_length_ratio: also limits the length to this multiple of the number of tokens of
                the utterance's longer modality.
            sample: beam sampling instead of beam search; see ``beam_search``.
            temperature: divides the logits.
            seed: of the sampling.
            contrast: α of contrastive decoding: 1 + α times the logits with audio and video, minus
                α times those with audio alone, so that what the lips add to the sound counts more.
                Ignored for a single modality.

        Returns:
            For each utterance ``nbest`` hypotheses, best first.
        """
        self.check_generation(
            {
                "beam_size": beam_size,
                "nbest": nbest,
                "length_penalty": length_penalty,
                "max_new_tokens": max_new_tokens,
                "temperature": temperature,
                "contrast": contrast,
            }
        )
        settings = {
            "eos": self.eos_token_id,
            "beam_size": beam_size,
            "nbest": nbest,
            "length_penalty": length_penalty,
            "sample": sample,
            "temperature": temperature,
            "seed": seed,
        }
        longest = torch.stack(list(token_lengths.values())).amax(dim=0)  # (B,)
        limits = torch.full_like(longest, max_new_tokens)
        if max_length_ratio is not None:
            by_ratio = torch.ceil(longest * max_length_ratio).long().clamp_min(1)
            limits = torch.minimum(limits, by_ratio)
        prefixes = [[prefix] for prefix in self._prefixes(tokens, token_lengths)]
        if contrast and len(tokens) > 1:
            settings["contrast"] = contrast
            heard = self._prefixes({"audio": tokens["audio"]}, token_lengths)
            prefixes = [[*full, poor] for full, poor in zip(prefixes, heard, strict=True)]
        longest_prefix = max(len(prefix) for rows in prefixes for prefix in rows)
        self._check_window(longest_prefix + int(limits.max()))

        attention = self.llm.config._attn_implementation
        if attention not in ("sdpa", "eager"):
            self.llm.set_attn_implementation("sdpa")
        try:
            with merged_lora(self.llm):
                return self._search(prefixes, limits, settings)
        finally:
            if attention not in ("sdpa", "eager"):
                self.llm.set_attn_implementation(attention)

    @classmethod
    def check_generation(cls, settings: Mapping[str, Any]) -> None:
        """See ``AbsAVDecoder``; the values are checked as well."""
        super().check_generation(settings)
        for name in ("beam_size", "nbest", "max_new_tokens"):
            value = settings.get(name, 1)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}, expected a whole number of at least 1")
        for name in ("length_penalty", "temperature", "contrast"):
            value = settings.get(name, 1.0)
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise ValueError(f"{name} is {value!r}, expected a number")
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}, expected a finite number")
        if settings.get("temperature", 1.0) <= 0:
            raise ValueError(f"temperature is {settings['temperature']}, expected a number above 0")
        if settings.get("contrast", 0.0) < 0:
            raise ValueError(f"contrast is {settings['contrast']}, expected a number of at least 0")
        nbest, beam_size = settings.get("nbest", 1), settings.get("beam_size", math.inf)
        if nbest > beam_size:
            raise ValueError(f"nbest is {nbest}, but must be between 1 and beam_size {beam_size}")

    def _search(
        self, prefixes: list[list[torch.Tensor]], limits: torch.Tensor, settings: dict[str, Any]
    ) -> list[list[Hypothesis]]:
        rows = [prefix for utterance in prefixes for prefix in utterance]
        lengths = torch.tensor([len(prefix) for prefix in rows])
        try:
            nbests = beam_search(
                self, pad_sequence(rows, batch_first=True), lengths, limits, **settings
            )
        except torch.OutOfMemoryError:
            if len(prefixes) == 1:
                raise
        else:
            return [
                [Hypothesis(b.ids, self.decode_ids(b.ids), b.score, b.finished) for b in beams]
                for beams in nbests
            ]
        # After the except block, whose traceback would keep the failed attempt's memory.
        half = (len(prefixes) + 1) // 2
        logging.warning(
            f"out of memory with {len(prefixes)} utterances at once: retrying with {half}. "
            "A smaller batch_size or beam_size avoids this"
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self._search(prefixes[:half], limits[:half], settings) + self._search(
            prefixes[half:], limits[half:], settings
        )

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Map token ids ``(...)`` to the LLM's input embeddings ``(..., E)``."""
        table = self.llm.get_input_embeddings()
        if self.extra_rows is None:
            return table(ids)
        return self.extra_rows.embed(table, ids)

    def hidden_states(
        self,
        embeddings: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor | None = None,
        cache: DynamicCache | None = None,
    ) -> torch.Tensor:
        """Run the LLM up to its output layer.

        Args:
            embeddings: ``(B, T, E)``.
            mask: valid positions, ``(B, T)``; or the positions that each query may attend to,
                boolean ``(B, 1, T, S)`` with S = positions in the cache + T.
            positions: ``(B, T)``; by default counted from the cache's end.
            cache: keys and values of earlier positions; extended in place.

        Returns:
            ``(B, T, E)``.
        """
        return self._run(embeddings, mask, position_ids=positions, cache=cache).last_hidden_state

    def _run(
        self,
        embeddings: torch.Tensor,
        mask: torch.Tensor,
        *,
        cache: DynamicCache | None = None,
        **options: Any,
    ) -> BaseModelOutputWithPast:
        dtype = self.llm.get_input_embeddings().weight.dtype
        if mask.dim() == 4 and self.llm.config._attn_implementation == "eager":
            lowest = torch.finfo(dtype).min
            mask = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, lowest)
        return self.llm.base_model(
            inputs_embeds=embeddings.to(dtype),
            attention_mask=mask,
            use_cache=cache is not None,
            **{self._cache_option: cache},
            **options,
        )

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map the LLM's last hidden states ``(..., E)`` to ``(..., V)``."""
        logits = self.llm.get_output_embeddings()(hidden)
        if self.extra_rows is None:
            return logits
        return torch.cat([logits, self.extra_rows.logits(hidden).to(logits.dtype)], dim=-1)

    def _prompt_ids(self, modalities: tuple[str, ...]) -> tuple[list[int], list[int]]:
        prompt = choose_prompt(self.prompt, modalities)
        return prompt_ids(self.tokenizer, prompt, chat_template=self.chat_template)

    def _prefixes(
        self, tokens: dict[str, torch.Tensor], token_lengths: dict[str, torch.Tensor]
    ) -> list[torch.Tensor]:
        """Return the embeddings ``(P_b, E)`` of everything before the text, per utterance."""
        if self.needs_view and self.active_view.view is None:
            raise ValueError(
                "the LLM has adapters for each task or rates: call it `with decoder.active(view)`"
            )
        modalities = tuple(m for m in MODALITIES if m in tokens)
        if not modalities or len(modalities) < len(tokens):
            known = ", ".join(MODALITIES)
            raise ValueError(f"the decoder takes tokens of {known}, but got {list(tokens)}")
        device = tokens[modalities[0]].device
        around: dict[tuple[str, ...], list[torch.Tensor]] = {}  # what comes before and after media
        opening = dict(zip(MODALITIES, self.delimiters[0::2], strict=True))
        closing = dict(zip(MODALITIES, self.delimiters[1::2], strict=True))
        lengths = {m: token_lengths[m].tolist() for m in modalities}
        prefixes = []
        for b in range(len(tokens[modalities[0]])):
            present = tuple(m for m in modalities if lengths[m][b]) or modalities
            if present not in around:
                around[present] = [
                    self.embed(torch.tensor(ids, dtype=torch.long, device=device))
                    for ids in self._prompt_ids(present)
                ]
            before, after = around[present]
            media = []
            for m in modalities:
                media += [opening[m][None]] if m in present else []
                # Even if it is empty: distributed training waits for all gradients.
                media += [tokens[m][b, : lengths[m][b]]]
                media += [closing[m][None]] if m in present else []
            prefixes.append(torch.cat([before, *media, after]))
        return prefixes

    def _check_window(self, length: int) -> None:
        window = getattr(self.llm.config, "sliding_window", None)
        if window is not None and length > window:
            raise ValueError(
                f"{length} positions do not fit into the LLM's sliding attention window "
                f"({window}), which generation does not implement. Use shorter utterances, "
                "stronger downsampling or a smaller max_new_tokens"
            )


class ExtraRows(nn.Module):
    """Tokens beyond the LLM's vocabulary, for imported models.

    Some published models append tokens (a pad token, delimiters) to the LLM's embedding and output
    layers. They are part of the model: its softmax runs over them, and a text may contain them.
    They are not trained.

    Args:
        num: number of tokens; their ids follow the LLM's last one.
        table: the LLM's embeddings ``(V, E)``, which set the scale of the initial values.
    """

    def __init__(self, num: int, table: torch.Tensor):
        super().__init__()
        self.input = nn.Parameter(_like_rows_of(table, num), requires_grad=False)
        self.output = nn.Parameter(self.input.detach().clone(), requires_grad=False)

    def embed(self, table: nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
        """Map ids ``(...)`` to ``(..., E)``, from ``table`` or from here."""
        is_extra = ids >= table.num_embeddings
        embeddings = table(ids.masked_fill(is_extra, 0))
        extra = self.input[(ids - table.num_embeddings).clamp_min(0)]
        return torch.where(is_extra[..., None], extra.to(embeddings.dtype), embeddings)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map ``(..., E)`` to ``(..., num)``."""
        return F.linear(hidden, self.output.to(hidden.dtype))


def _load(
    model: str,
    gguf_file: str | None,
    attn_implementation: str | None,
    dtype: str | None,
    tokenizer: str | None,
) -> tuple[PreTrainedModel, Any]:
    directory, gguf_file = locate_llm(model, gguf_file, weights=not on_meta())
    if gguf_file is None:
        _check_kind(model, directory)
    options = {}
    if gguf_file is not None and hasattr(transformers, "GgufConfig"):
        # Recent versions may keep the weights packed, but adapters need plain ones.
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    common = {"dtype": base_dtype(dtype), "attn_implementation": attn_implementation}
    if on_meta():
        config = AutoConfig.from_pretrained(directory, gguf_file=gguf_file)
        llm = AutoModelForCausalLM.from_config(config, **common)
    else:
        llm = AutoModelForCausalLM.from_pretrained(
            directory, gguf_file=gguf_file, **common, **options
        )
    for setting in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(llm.config, setting, None) not in (None, 1, 1.0):
            raise ValueError(
                f"'{model}' ({llm.config.model_type}) rescales its logits ({setting}), which this "
                "decoder does not implement. Use a Llama-like LLM"
            )
    if tokenizer is not None:
        return llm, load_tokenizer(tokenizer)
    return llm, load_tokenizer(str(directory), gguf_file)


def _check_kind(model: str, directory: Path) -> None:
    """Raise BaseModelError if a directory does not hold a causal LM."""
    config = directory / "config.json"
    if not config.is_file():
        raise BaseModelError(f"LLM '{model}': there is no config.json in {directory}")
    kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    is_causal = kind in CONFIG_MAPPING
    if is_causal:
        settings = AutoConfig.from_pretrained(directory)
        # Hugging Face also lists encoder-decoders, and bidirectional models such as BERT, which
        # have token types.
        is_causal = (
            type(settings) in MODEL_FOR_CAUSAL_LM_MAPPING
            and not getattr(settings, "is_encoder_decoder", False)
            and not hasattr(settings, "type_vocab_size")
        )
    if not is_causal:
        raise BaseModelError(
            f"'{model}' is a {kind} model, not a causal LM like Llama: check model in decoder_conf"
        )


def _check_vocabulary(tokenizer: Any, rows: int, model: str) -> None:
    """Raise ValueError if texts may contain tokens without an embedding in the LLM."""
    # Texts contain no special tokens: a pad token beyond the table, as in some models, is fine.
    special = set(tokenizer.all_special_ids)
    largest = max((i for i in tokenizer.get_vocab().values() if i not in special), default=0)
    if largest >= rows:
        raise ValueError(
            f"the tokenizer has ids up to {largest}, but the LLM '{model}' has {rows} embeddings: "
            "they belong to different models, check model and tokenizer"
        )


def _checkpoint_layers(llm: nn.Module, active_view: ActiveView) -> None:
    """Recompute the layers in the backward pass.

    Hugging Face's own switch affects modules in training mode only, which a frozen base never is.
    """
    for layer in _layers(llm):
        layer.forward = types.MethodType(_checkpointed(layer.forward.__func__, active_view), layer)


def _layers(llm: nn.Module) -> list[nn.Module]:
    return [m for m in llm.modules() if isinstance(m, GradientCheckpointingLayer)]


def _checkpointed(plain: Callable, active_view: ActiveView) -> Callable:
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return plain(self, *args, **kwargs)
        # The backward pass recomputes in the context of this call, which has ended by then.
        run = contextvars.copy_context().run
        return checkpoint(
            partial(run, plain, self),
            *args,
            use_reentrant=False,
            context_fn=active_view.again,
            **kwargs,
        )

    return forward


@torch.no_grad()
def _like_rows_of(table: torch.Tensor, num: int) -> torch.Tensor:
    """Draw float32 rows ``(num, E)`` with the mean and deviation of ``table`` ``(V, E)``."""
    step = math.ceil(len(table) / 4096)  # a sample of the rows is enough
    rows = table[::step].float()
    return rows.mean() + rows.std() * torch.randn(num, table.size(1))
