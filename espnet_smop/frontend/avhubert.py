"""AV-HuBERT (Shi et al. 2022) in plain PyTorch: the model and its frontend."""

import dataclasses
import json
import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from espnet_smop.base_model import (
    BaseModelError,
    as_frozen,
    base_dtype,
    fingerprint,
    freeze,
    locate,
    on_meta,
    save_with_experiment,
)
from espnet_smop.compiled import compile_layers
from espnet_smop.fileio.atomic import atomic_path, atomic_write
from espnet_smop.frontend.abs_frontend import AbsAVFrontend
from espnet_smop.frontend.filterbank import stacked_filterbanks
from espnet_smop.frontend.resnet import VideoResNet
from espnet_smop.lora import inject_lora

_MODEL_TYPE = "avhubert"


@dataclasses.dataclass(kw_only=True)
class AVHuBERTConfig:
    """Sizes of an AV-HuBERT; the defaults are LARGE's.

    Names are as in the configs of published checkpoints. The ``resnet_*`` sizes, which are fixed
    there, can be set here, so that a small model can be trained from scratch.
    """

    encoder_layers: int = 24
    encoder_embed_dim: int = 1024
    encoder_ffn_embed_dim: int = 4096
    encoder_attention_heads: int = 16
    conv_pos: int = 128
    conv_pos_groups: int = 16
    audio_feat_dim: int = 104
    resnet_relu_type: str = "prelu"
    resnet_stem_channels: int = 64
    resnet_stem_stride: int = 2
    resnet_channels: list[int] = dataclasses.field(default_factory=lambda: [64, 128, 256, 512])
    resnet_blocks: list[int] = dataclasses.field(default_factory=lambda: [2, 2, 2, 2])
    dropout: float = 0.1
    attention_dropout: float = 0.1


class PositionalConvolution(nn.Module):
    """Convolutional position embedding with weight normalisation over the kernel's taps."""

    def __init__(self, width: int, *, kernel: int, groups: int):
        super().__init__()
        self.groups = groups
        self.bias = nn.Parameter(torch.zeros(width))
        v = torch.randn(width, width // groups, kernel) * (4.0 / (kernel * width)) ** 0.5
        self.weight_g = nn.Parameter(v.norm(dim=(0, 1), keepdim=True))
        self.weight_v = nn.Parameter(v)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, T, D)`` to the position embeddings ``(B, T, D)``."""
        if x.device.type != "cpu":
            return self._convolve(x)
        # oneDNN's grouped bfloat16 convolution gives wrong results on CPUs with AMX if a group
        # has few channels (seen in torch 2.14).
        with torch.autocast("cpu", enabled=False):
            return self._convolve(x.float()).to(x.dtype)

    def _convolve(self, x: torch.Tensor) -> torch.Tensor:
        weight = torch._weight_norm(self.weight_v, self.weight_g, 2).to(x.dtype)
        bias = self.bias.to(x.dtype)
        frames = x.shape[1]
        x = F.conv1d(
            x.transpose(1, 2), weight, bias, padding=weight.shape[2] // 2, groups=self.groups
        )
        # An even kernel gives one frame too many.
        return F.gelu(x[..., :frames]).transpose(1, 2)


class RealFrames(NamedTuple):
    """Positions of the real frames in a batch.

    Frame-wise layers run on the packed real frames only, so that padding costs nothing; attention
    takes them as a padded batch.

    Attributes:
        inside: ``(B, T)``, true for real frames.
        places: ``(N,)``, their indices among the ``B · T``.
    """

    inside: torch.Tensor
    places: torch.Tensor

    @classmethod
    def of(cls, inside: torch.Tensor) -> "RealFrames | None":
        """Build from ``inside`` (B, T); None if all are real."""
        places = inside.flatten().nonzero()[:, 0]
        return None if len(places) == inside.numel() else cls(inside, places)

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, T, D)`` to ``(N, D)``."""
        return x.flatten(0, 1)[self.places]

    def pad(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, D)`` to ``(B, T, D)``, zero where there is padding."""
        padded = x.new_zeros(self.inside.numel(), x.shape[-1])
        return padded.index_copy(0, self.places, x).view(*self.inside.shape, -1)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, *, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, frames: RealFrames | None) -> torch.Tensor:
        """Map ``(N, D)`` to ``(N, D)``; without ``frames`` ``(B, T, D)`` to ``(B, T, D)``."""
        projected = [projection(x) for projection in (self.q_proj, self.k_proj, self.v_proj)]
        mask = None  # attention has faster kernels without one
        if frames is not None:
            projected = [frames.pad(y) for y in projected]
            mask = frames.inside[:, None, None]  # (B, 1, 1, T)
        # each (B, heads, T, D / heads)
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in projected)
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        x = x.transpose(1, 2).flatten(2)
        return self.out_proj(x if frames is None else frames.pack(x))


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, config: AVHuBERTConfig):
        super().__init__()
        width = config.encoder_embed_dim
        self.self_attn = Attention(
            width, heads=config.encoder_attention_heads, dropout=config.attention_dropout
        )
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_embed_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: torch.Tensor, frames: RealFrames | None) -> torch.Tensor:
        """Map ``(N, D)`` to ``(N, D)``; without ``frames`` ``(B, T, D)`` to ``(B, T, D)``."""
        x = x + self.dropout(self.self_attn(self.self_attn_layer_norm(x), frames))
        return x + self.dropout(self.fc2(F.gelu(self.fc1(self.final_layer_norm(x)))))


class Encoder(nn.Module):
    """Convolutional positions and a stack of pre-norm transformer layers."""

    def __init__(self, config: AVHuBERTConfig):
        super().__init__()
        width = config.encoder_embed_dim
        self.pos_conv = nn.Sequential(
            PositionalConvolution(width, kernel=config.conv_pos, groups=config.conv_pos_groups)
        )
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: torch.Tensor, inside: torch.Tensor, *, all_layers: bool
    ) -> list[torch.Tensor]:
        """Encode ``(B, T, D)``, whose real frames ``inside`` (B, T) marks; others become zero."""
        x = x * inside[..., None]
        x = self.dropout(x + self.pos_conv(x))
        frames = RealFrames.of(inside)
        if frames is not None:
            x = frames.pack(x)
        hidden = []
        for layer in self.layers:
            if all_layers:
                hidden.append(x)
            x = layer(x, frames)
        hidden.append(self.layer_norm(x))
        return hidden if frames is None else [frames.pad(x) for x in hidden]


class ModalityProjection(nn.Module):
    """Maps one modality's features to the encoder's width."""

    def __init__(self, input_size: int, width: int, *, resnet: VideoResNet | None = None):
        super().__init__()
        if resnet is not None:
            self.resnet = resnet
        self.proj = nn.Linear(input_size, width)


class AVHuBERTModel(nn.Module):
    """AV-HuBERT without its pretraining heads: a plain module, trainable from scratch.

    Parameters have the names of published checkpoints. A missing modality is replaced by zeros
    after its projection, as in AV-HuBERT's modality dropout.
    """

    def __init__(self, config: AVHuBERTConfig):
        super().__init__()
        self.config = config
        width = config.encoder_embed_dim
        resnet = VideoResNet(
            stem_channels=config.resnet_stem_channels,
            stem_stride=config.resnet_stem_stride,
            channels=config.resnet_channels,
            blocks=config.resnet_blocks,
            relu_type=config.resnet_relu_type,
        )
        self.feature_extractor_audio = ModalityProjection(config.audio_feat_dim, width)
        self.feature_extractor_video = ModalityProjection(resnet.output_size, width, resnet=resnet)
        self.layer_norm = nn.LayerNorm(2 * width)
        self.post_extract_proj = nn.Linear(2 * width, width)
        self.encoder = Encoder(config)

    def forward(
        self,
        *,
        video: torch.Tensor | None = None,
        audio: torch.Tensor | None = None,
        lengths: torch.Tensor | None = None,
        all_layers: bool = False,
    ) -> list[torch.Tensor]:
        """Encode video, audio, or both.

        Args:
            video: normalised grey crops ``(B, T, 88, 88)``. As in the published model, the
                stem reaches two frames beyond an utterance's end: pad with zeros.
            audio: stacked filterbanks ``(B, T, audio_feat_dim)`` at the video's frame rate.
            lengths: frames of each utterance ``(B,)``; None means all.
            all_layers: return every layer's hidden states, not only the last one's.

        Returns:
            Tensors ``(B, T, D)``: with ``all_layers`` the first layer's input, the outputs of
            all layers but the last, and the normalised output of the last; else only the latter.
        """
        given = video if video is not None else audio
        if given is None:
            raise ValueError("AV-HuBERT was given neither video nor audio")
        batch, frames = given.shape[:2]
        if lengths is None:
            lengths = torch.full((batch,), frames, device=given.device)
        inside = torch.arange(frames, device=given.device) < lengths[:, None]
        dtype = self.post_extract_proj.weight.dtype
        zeros = torch.zeros(
            batch, frames, self.config.encoder_embed_dim, dtype=dtype, device=given.device
        )
        a = v = zeros
        if audio is not None:
            a = self.feature_extractor_audio.proj(audio.to(dtype))
        if video is not None:
            extractor = self.feature_extractor_video
            v = extractor.proj(extractor.resnet(video.to(dtype), inside))
        x = self.post_extract_proj(self.layer_norm(torch.cat([a, v], dim=-1)))
        return self.encoder(x, inside, all_layers=all_layers)

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Write ``config.json`` and ``model.safetensors``.

        ``config.json`` is written last: with it, the directory is complete.
        """
        save(self.config, self.state_dict(), directory)

    @classmethod
    def from_pretrained(
        cls, model: str | os.PathLike, *, dtype: torch.dtype = torch.float32
    ) -> "AVHuBERTModel":
        """Load what `save_pretrained` wrote, from a directory or hub id, in evaluation mode.

        Raises:
            BaseModelError: it is not an AV-HuBERT, or weights are missing or do not fit.
        """
        from safetensors.torch import load_file

        needed = ("config.json",) if on_meta() else ("config.json", "model.safetensors")
        path = locate(os.fspath(model), patterns=needed)
        absent = [n for n in needed if not (path / n).is_file()]
        if absent:
            raise BaseModelError(
                f"AV-HuBERT '{model}': there is no {' and no '.join(absent)} in {path}. Convert "
                "published checkpoints with `espnet_smop.bin.convert_base_model avhubert`"
            )
        settings = json.loads((path / "config.json").read_text())
        if settings.pop("model_type", None) != _MODEL_TYPE:
            raise BaseModelError(f"AV-HuBERT '{model}': config.json is of another kind of model")
        try:
            config = AVHuBERTConfig(**settings)
        except TypeError as e:
            raise BaseModelError(f"AV-HuBERT '{model}': config.json: {e}") from e
        with torch.device("meta"):
            loaded = cls(config)
        if on_meta():
            return loaded.to(dtype).eval()
        weights = load_file(path / "model.safetensors")
        weights = {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights.items()}
        check_weights(loaded, weights, source=f"AV-HuBERT '{model}'")
        loaded.load_state_dict(weights, assign=True)
        return loaded.eval()


def check_weights(model: nn.Module, weights: dict[str, torch.Tensor], *, source: str) -> None:
    """Raise `BaseModelError` for missing or unexpected tensors, or ones of the wrong shape."""
    wanted = model.state_dict()
    problems = [
        ("missing", sorted(wanted.keys() - weights.keys())),
        ("unexpected", sorted(weights.keys() - wanted.keys())),
        (
            "of another shape",
            [
                f"{k} {tuple(weights[k].shape)}, expected {tuple(wanted[k].shape)}"
                for k in sorted(wanted.keys() & weights.keys())
                if weights[k].shape != wanted[k].shape
            ],
        ),
    ]
    text = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in problems if names)
    if text:
        raise BaseModelError(f"{source}: the weights do not fit the config. {text}")


def statistics_names(model: nn.Module) -> list[str]:
    """Return the names of the BatchNorm statistics in the state dict of an `AVHuBERTModel`."""
    return [
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for name, _ in module.named_buffers()
    ]


def save(
    config: AVHuBERTConfig, weights: dict[str, torch.Tensor], directory: str | os.PathLike
) -> None:
    """Write an AV-HuBERT directory from a config and its weights."""
    from safetensors.torch import save_file

    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").unlink(missing_ok=True)
    weights = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    with atomic_path(path / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    with atomic_write(path / "config.json") as file:
        text = json.dumps({"model_type": _MODEL_TYPE, **dataclasses.asdict(config)}, indent=2)
        file.write(text + "\n")


class AVHuBERTFrontend(AbsAVFrontend):
    """A frozen AV-HuBERT, with 25 output frames per second.

    Args:
        model: directory or hub id in the format of `AVHuBERTModel.save_pretrained`.
        modality: input of `forward`: ``video`` ``(B, T, 88, 88)``; ``audio``, waveforms
            ``(B, samples)`` or stacked filterbanks ``(B, T, 104)``; or ``audiovisual``, the pair
            (video, filterbanks) with equal T.
        lora: adapters, see `inject_lora`; null for none. The paper's VSR has
            ``{r: 64, alpha: 128}`` for LARGE (rank D / 16, scale 2).
        dtype: ``float32``, ``bfloat16`` or ``float16``; null is bfloat16 where CUDA is available.
        own_statistics: the BatchNorm statistics belong to the experiment's checkpoint and not to
            the base. The public Llama-SMoP code lets them drift in training, so an imported
            model has its own.
        compile: run the encoder's transformer layers through ``torch.compile`` in training.
    """

    def __init__(
        self,
        model: str,
        *,
        modality: str = "video",
        lora: dict | None = None,
        dtype: str | None = None,
        own_statistics: bool = False,
        compile: bool = False,
    ):
        super().__init__()
        if modality not in ("video", "audio", "audiovisual"):
            raise ValueError(f"modality: '{modality}' is none of video, audio, audiovisual")
        self.modality = modality
        self.encoder = freeze(AVHuBERTModel.from_pretrained(model, dtype=base_dtype(dtype)))
        self._fingerprint = fingerprint(self.encoder)
        if own_statistics:
            save_with_experiment(self.encoder, statistics_names(self.encoder))
        self.has_lora = lora is not None
        if lora is not None:
            inject_lora(self.encoder, lora)
        if compile:
            compile_layers(self.encoder.encoder.layers, when=lambda: self.training)

    def output_size(self) -> int:
        """Return the width D of the features."""
        return self.encoder.config.encoder_embed_dim

    @property
    def num_layers(self) -> int:
        """Number of encoder layers L."""
        return self.encoder.config.encoder_layers

    @property
    def frame_rate(self) -> float:
        """Output frames per second."""
        return 25.0

    def fingerprints(self) -> dict[str, str]:
        """Return the fingerprint of the frozen encoder."""
        return {"avhubert": self._fingerprint}

    def forward(
        self,
        input: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
        input_lengths: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode a batch of the frontend's modality.

        Returns:
            Features ``(B, T, D)``, zero beyond an utterance's end, and lengths ``(B,)``.
        """
        layers, lengths = self._layers(input, input_lengths, all_layers=False)
        return layers[-1], lengths

    def layers(
        self,
        input: torch.Tensor | tuple[torch.Tensor, torch.Tensor],
        input_lengths: torch.Tensor,
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the L + 1 hidden states ``(B, T, D)`` and lengths; forward returns the last."""
        return self._layers(input, input_lengths, all_layers=True)

    def _layers(self, input, lengths, *, all_layers):
        pair = {"video": (input, None), "audio": (None, input), "audiovisual": input}
        video, audio = pair[self.modality]
        device = (video if video is not None else audio).device
        lengths = lengths.to(device)
        if self.modality == "audio" and audio.dim() == 2:
            audio, lengths = stacked_filterbanks(audio, lengths)
        frames = int(lengths.max())
        inside = torch.arange(frames, device=device) < lengths[:, None]
        with as_frozen(device, adapters=self.has_lora):
            if video is not None:
                # The stem reaches beyond an utterance's end, so zeros are needed there.
                video = torch.where(inside[..., None, None], video[:, :frames], 0.0)
            if audio is not None:
                audio = audio[:, :frames]
            layers = self.encoder(video=video, audio=audio, lengths=lengths, all_layers=all_layers)
        return [x * inside[..., None] for x in layers], lengths
