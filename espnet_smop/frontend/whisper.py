"""Whisper's encoder as an ESPnet frontend."""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from espnet_smop.base_model import (
    BaseModelError,
    as_frozen,
    base_dtype,
    fingerprint,
    freeze,
    locate,
    on_meta,
)
from espnet_smop.compiled import compile_layers
from espnet_smop.frontend.abs_frontend import AbsAVFrontend
from espnet_smop.frontend.log_mel import LogMel
from espnet_smop.lora import inject_lora
from espnet_smop.modality import SAMPLE_RATE

SAMPLES_PER_FRAME = 320  # 160 samples per mel frame, two mel frames per output frame


def load_encoder(model: str, *, dtype: torch.dtype = torch.float32) -> WhisperEncoder:
    """Load the encoder of a Whisper model; the decoder's weights are never read.

    Args:
        model: a directory or hub id of any Hugging Face Whisper (`WhisperModel`,
            `WhisperForConditionalGeneration`, or an encoder saved alone).
        dtype: the dtype to load it in.

    Raises:
        BaseModelError: it is not a Whisper model, or encoder weights are missing.
    """
    weights = () if on_meta() else ("model*.safetensors", "*.safetensors.index.json")
    path = locate(model, patterns=("config.json", *weights))
    if not (path / "config.json").is_file():
        raise BaseModelError(f"Whisper model '{model}': there is no config.json in {path}")
    config = WhisperConfig.from_pretrained(path)
    if config.model_type != "whisper":
        raise BaseModelError(f"'{model}' is a {config.model_type} model, not Whisper")
    with torch.device("meta"):
        encoder = WhisperEncoder._from_config(config, attn_implementation="sdpa")
    if on_meta():
        return encoder.to(dtype).eval()
    found = _read_encoder_weights(path, dtype)
    wanted = set(encoder.state_dict())
    if wanted != set(found):
        raise BaseModelError(
            f"Whisper model '{model}': its weights do not fit its config.json. "
            f"Missing: {sorted(wanted - set(found))}; unexpected: {sorted(set(found) - wanted)}"
        )
    encoder.load_state_dict(found, assign=True)
    return encoder.eval()


def _read_encoder_weights(path: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    from safetensors import safe_open

    # Hub repositories may hold a second copy in another precision beside the one that
    # from_pretrained reads: the single file, else the shards of the index.
    files = [path / "model.safetensors"]
    if not files[0].is_file():
        files = sorted(path.glob("model-*-of-*.safetensors"))
    if not files:
        raise BaseModelError(
            f"there is no model.safetensors in {path}. If the weights are there in another format, "
            "load them with transformers and save them with `save_pretrained`"
        )
    weights = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                short = name.removeprefix("model.")
                is_bare_encoder = not short.startswith(("encoder.", "decoder.", "proj_out."))
                if short.startswith("encoder.") or is_bare_encoder:
                    tensor = tensors.get_tensor(name).to(dtype)
                    weights[short.removeprefix("encoder.")] = tensor
    return weights


def encode(
    encoder: WhisperEncoder,
    mel: torch.Tensor,
    lengths: torch.Tensor | None = None,
    *,
    frames: int | None = None,
    all_layers: bool = False,
) -> list[torch.Tensor]:
    """Run a Whisper encoder on spectrograms of any length up to its maximum.

    Unlike ``WhisperEncoder.forward``, it takes fewer than 3,000 frames and masks padding. It is
    differentiable and respects ``encoder.training``, so encoders can be trained with it.

    Args:
        encoder: the encoder, frozen or not.
        mel: log-mel spectrograms ``(B, num_mels, 2 T)``.
        lengths: output frames ``(B,)`` to attend to; None attends to all.
        frames: T, if the layers need fewer frames than the convolutions; None is all.
        all_layers: return every layer's hidden states, not only the last one's.

    Returns:
        Tensors ``(B, T, D)``: with ``all_layers`` the first layer's input, the outputs of all
        layers but the last, and the normalised output of the last; else only the latter.
    """
    x = F.gelu(encoder.conv1(mel.to(encoder.conv1.weight.dtype)))
    x = F.gelu(encoder.conv2(x)).transpose(1, 2)
    # The sum would keep the convolution's layout, which every layer would copy again.
    x = x[:, :frames].contiguous()
    x = x + encoder.embed_positions.weight[: x.shape[1]]
    x = F.dropout(x, p=encoder.dropout, training=encoder.training)
    mask = None
    if lengths is not None:
        # (B, 1, 1, T), added to the attention logits
        padded = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]
        mask = torch.zeros(padded.shape, dtype=x.dtype, device=x.device)
        mask = mask.masked_fill(padded, torch.finfo(x.dtype).min)[:, None, None]
    hidden = []
    for layer in encoder.layers:
        if all_layers:
            hidden.append(x)
        x = layer(x, mask)
    return [*hidden, encoder.layer_norm(x)]


class WhisperFrontend(AbsAVFrontend):
    """Any Hugging Face Whisper encoder, frozen, with 50 output frames per second.

    An utterance of n samples gives ``max(n // 320, 1)`` frames.

    - ``padding: 30s`` is what Whisper was trained on: the utterance is padded to 30 s with
      zeros, attention covers all of it, and the output is cut to the utterance's frames.
    - ``padding: longest`` computes only the utterance's frames. Silence is still assumed after
      it, so spectrogram and convolutions equal those of ``30s``, but attention covers only its
      own frames. That costs 4 to 16 times less at usual lengths.

    In both modes an utterance's result does not depend on its batch.

    Args:
        model: directory or hub id of a Whisper model; only its encoder is loaded.
        padding: ``longest`` or ``30s`` (with a smaller ``max_source_positions`` than
            1,500 in the model's config, its own maximum instead of 30 s).
        lora: adapters, see `inject_lora`; null for none.
        dtype: ``float32``, ``bfloat16`` or ``float16``; null is bfloat16 where CUDA is available.
        chunk_seconds: encode utterances in pieces of this length and join the results, so that
            they may be longer than the encoder's maximum (for inference); null refuses longer ones.
        compile: run the encoder's layers through ``torch.compile`` in training.
    """

    def __init__(
        self,
        model: str,
        *,
        padding: str = "longest",
        lora: dict | None = None,
        dtype: str | None = None,
        chunk_seconds: float | None = None,
        compile: bool = False,
    ):
        super().__init__()
        if padding not in ("longest", "30s"):
            raise ValueError(f"padding: '{padding}' is neither 'longest' nor '30s'")
        self.padding = padding
        self.encoder = freeze(load_encoder(model, dtype=base_dtype(dtype)))
        self._fingerprint = fingerprint(self.encoder)
        self.has_lora = lora is not None
        if lora is not None:
            inject_lora(self.encoder, lora)
        if compile:
            compile_layers(self.encoder.layers, when=lambda: self.training)
        self.log_mel = LogMel(num_mels=self.encoder.config.num_mel_bins)
        self.max_samples = self.encoder.config.max_source_positions * SAMPLES_PER_FRAME
        self.chunk_samples = None
        if chunk_seconds is not None:
            frames = int(chunk_seconds * SAMPLE_RATE) // SAMPLES_PER_FRAME
            self.chunk_samples = frames * SAMPLES_PER_FRAME
            if not 0 < self.chunk_samples <= self.max_samples:
                raise ValueError(
                    f"chunk_seconds: {chunk_seconds} is not in (0, {self.max_samples / SAMPLE_RATE}"
                    f"], the longest that '{model}' takes"
                )

    def output_size(self) -> int:
        """Return the width D of the features."""
        return self.encoder.config.d_model

    @property
    def num_layers(self) -> int:
        """Number of encoder layers L."""
        return self.encoder.config.encoder_layers

    @property
    def max_seconds(self) -> float:
        """Longest utterance in seconds that is encoded in one piece."""
        return self.max_samples / SAMPLE_RATE

    @property
    def frame_rate(self) -> float:
        """Output frames per second."""
        return SAMPLE_RATE / SAMPLES_PER_FRAME

    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of the frozen encoder."""
        return {"whisper": self._fingerprint}

    def forward(
        self, input: torch.Tensor, input_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode waveforms.

        Args:
            input: 16 kHz waveforms ``(B, samples)``.
            input_lengths: samples of each ``(B,)``.

        Returns:
            Features ``(B, T, D)``, zero beyond an utterance's end, and lengths ``(B,)``.

        Raises:
            ValueError: an utterance is longer than the encoder's maximum.
        """
        layers, lengths = self._layers(input, input_lengths, all_layers=False)
        return layers[-1], lengths

    def layers(
        self, input: torch.Tensor, input_lengths: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the L + 1 hidden states ``(B, T, D)`` and lengths; forward returns the last."""
        return self._layers(input, input_lengths, all_layers=True)

    def num_frames(self, samples: torch.Tensor) -> torch.Tensor:
        """Return the number of output frames of utterances with ``samples`` samples."""
        return (samples // SAMPLES_PER_FRAME).clamp(min=1)

    def _layers(
        self, speech: torch.Tensor, samples: torch.Tensor, *, all_layers: bool
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        samples = samples.to(speech.device)
        longest = int(samples.max())
        if self.chunk_samples is not None and longest > self.chunk_samples:
            return self._layers_in_chunks(speech, samples, all_layers=all_layers)
        if longest > self.max_samples:
            raise ValueError(
                f"an utterance of {longest / SAMPLE_RATE:.1f} s is longer than the "
                f"{self.max_samples / SAMPLE_RATE:.1f} s that this Whisper takes. Drop or cut it "
                "for training; for inference set `chunk_seconds` in audio_frontend_conf"
            )
        lengths = self.num_frames(samples)
        frames = int(lengths.max())
        with as_frozen(speech.device, adapters=self.has_lora):
            if self.padding == "30s":
                mel = self.log_mel(speech, samples, self.max_samples)
                layers = encode(self.encoder, mel, all_layers=all_layers)
            else:
                # Two more output frames cover the last one's receptive field.
                needed = min((frames + 2) * SAMPLES_PER_FRAME, self.max_samples)
                mel = self.log_mel(speech, samples, needed)
                layers = encode(self.encoder, mel, lengths, frames=frames, all_layers=all_layers)
            inside = torch.arange(frames, device=speech.device) < lengths[:, None]
            return [x[:, :frames] * inside[..., None] for x in layers], lengths

    def _layers_in_chunks(
        self, speech: torch.Tensor, samples: torch.Tensor, *, all_layers: bool
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        pieces, owner = [], []
        for i, n in enumerate(samples.tolist()):
            # A remainder shorter than a frame is dropped, unless it is the whole utterance.
            chunks = speech[i, :n].split(self.chunk_samples)
            chunks = [c for c in chunks if len(c) >= SAMPLES_PER_FRAME] or [chunks[0]]
            pieces += chunks
            owner += [i] * len(chunks)
        counts = torch.tensor([len(p) for p in pieces], device=speech.device)
        batch = nn.utils.rnn.pad_sequence(pieces, batch_first=True)
        layers, lengths = self._layers(batch, counts, all_layers=all_layers)
        kept = lengths.tolist()
        joined = []
        for x in layers:
            rows = [[] for _ in samples]
            for row, piece, frames in zip(owner, x, kept, strict=True):
                rows[row].append(piece[:frames])
            joined.append(nn.utils.rnn.pad_sequence([torch.cat(r) for r in rows], batch_first=True))
        totals = torch.zeros_like(samples).index_add(
            0, torch.tensor(owner, device=samples.device), lengths
        )
        return joined, totals
