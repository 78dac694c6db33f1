"""A training step on fake tensors, part by part.

They have shapes, dtypes and lifetimes but no content, so the model's own forward pass stops
wherever lengths decide what is done. Here all utterances are equally long, so that nothing is
masked, and an expert gets its tokens in one piece; what is computed is the same otherwise. All of
it runs within ``FakeTensorMode(allow_non_fake_inputs=True)``.
"""

import torch
from torch import nn

from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.decoder.prompt import prompt_ids
from espnet_smop.frontend import whisper
from espnet_smop.frontend.abs_frontend import AbsAVFrontend
from espnet_smop.frontend.avhubert import AVHuBERTFrontend
from espnet_smop.frontend.log_mel import HOP
from espnet_smop.frontend.resnet import _FRAMES_AT_ONCE
from espnet_smop.modality import FRAME_RATE, SAMPLE_RATE
from espnet_smop.projector.experts import Expert
from espnet_smop.projector.smop import SMoPProjector

_CROP = 88


def make_fake(model: nn.Module) -> None:
    """Replace what is on the meta device by fake tensors on the CPU; tied ones stay tied."""
    made = {}
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                    if store is module._parameters:
                        fake = nn.Parameter(fake, requires_grad=tensor.requires_grad)
                    made[id(tensor)] = (tensor, fake)
                store[name] = made[id(tensor)][1]


def encode(frontend: AbsAVFrontend, utterances: int, seconds: float) -> torch.Tensor:
    """Return the features ``(B, T, D)`` of so many utterances.

    Raises:
        ValueError: the frontend is neither a Whisper nor an AV-HuBERT that is given video.
    """
    if isinstance(frontend, whisper.WhisperFrontend):
        return _encode_audio(frontend, utterances, seconds)
    if isinstance(frontend, AVHuBERTFrontend) and frontend.modality == "video":
        return _encode_video(frontend.encoder, utterances, seconds)
    raise ValueError(
        f"shapes are known of Whisper and of AV-HuBERT's video, not of {type(frontend).__name__}"
    )


def _encode_audio(
    frontend: whisper.WhisperFrontend, utterances: int, seconds: float
) -> torch.Tensor:
    samples = int(seconds * SAMPLE_RATE)
    if frontend.padding == "30s":
        samples = frontend.max_samples
    # The waveforms live as long as the spectrograms.
    speech = torch.empty(utterances, samples)
    mels = frontend.encoder.config.num_mel_bins
    frames = 2 * (samples // whisper.SAMPLES_PER_FRAME)
    assert frames <= samples // HOP
    x = whisper.encode(frontend.encoder, torch.empty(utterances, mels, frames))[-1]
    del speech
    return x[:, : int(seconds * frontend.frame_rate)].clone()


def _encode_video(encoder: nn.Module, utterances: int, seconds: float) -> torch.Tensor:
    frames = int(seconds * FRAME_RATE)
    dtype = encoder.post_extract_proj.weight.dtype
    video = torch.empty(utterances, frames, _CROP, _CROP).to(dtype)
    resnet = encoder.feature_extractor_video.resnet
    x = resnet.frontend3D[0](video[:, None])
    pictures = x.transpose(1, 2).flatten(0, 1).clone()
    x = torch.cat(
        [
            resnet.trunk(resnet.frontend3D[1:](part)).mean(dim=(2, 3))
            for part in pictures.split(_FRAMES_AT_ONCE)
        ]
    )
    del pictures
    v = encoder.feature_extractor_video.proj(x.unflatten(0, (utterances, frames)))
    x = encoder.post_extract_proj(encoder.layer_norm(torch.cat([torch.zeros_like(v), v], dim=-1)))
    x = x + encoder.encoder.pos_conv(x)
    for layer in encoder.encoder.layers:
        x = layer(x, None)
    return encoder.encoder.layer_norm(x)


def project(
    projector: SMoPProjector, features: dict[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return the LLM's tokens ``(B, T', E)`` of each modality, and the auxiliary loss.

    A fusion takes the features in place of every layer's output.
    """
    lengths = {m: torch.full((len(x),), x.shape[1]) for m, x in features.items()}
    features = {m: projector._own_precision(x) for m, x in features.items()}
    layers = {
        m: [features[m]] * (fusion.num_layers + 1) for m, fusion in projector.stem.fusions.items()
    }
    tokens, _ = projector.stem(features, lengths, layers)
    rows = len(next(iter(tokens.values())))
    flat = {m: t.flatten(0, 1) for m, t in tokens.items()}
    projector.mixture.mix = _mix_in_one_piece
    valid = {m: torch.ones(len(t), dtype=torch.bool) for m, t in flat.items()}
    media, routings = projector.mixture(flat, valid)
    aux, _, _ = projector._account(routings, media)
    return {m: y.unflatten(0, (rows, -1)) for m, y in media.items()}, aux


def _mix_in_one_piece(pool: nn.Module, x: torch.Tensor, routing) -> torch.Tensor:
    """Do what a grouped dispatch does, with all rows going to one expert."""
    dtype = pool.w1.dtype
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
    with torch.autocast(x.device.type, enabled=False):
        experts = pool.stacked(dtype)
        expert = Expert(*(None if p is None else p[0] for p in experts))
        choices = 1 if routing is None else routing.weights.shape[1]
        y = expert(x.to(dtype).repeat_interleave(choices, 0)).unflatten(0, (-1, choices))
        if routing is None:
            return y[:, 0]
        return (y * routing.weights.to(dtype)[..., None]).sum(1)


def llm_loss(
    decoder: LLMDecoder,
    media: dict[str, torch.Tensor],
    text: int,
    *,
    around: int | None = None,
) -> torch.Tensor:
    """Return the cross-entropy of transcripts after media tokens.

    Args:
        decoder: the LLM.
        media: modality → ``(B, T', E)``.
        text: tokens of each transcript.
        around: tokens of the prompt and BOS; None counts them by the decoder's tokenizer.
    """
    if around is None:
        ids = prompt_ids(
            decoder.tokenizer, decoder.prompt or "", chat_template=decoder.chat_template
        )
        around = sum(map(len, ids))
    rows = len(next(iter(media.values())))
    fixed = torch.empty(rows, around + 2 * len(media), decoder.embed_size)
    words = decoder.embed(torch.zeros(rows, text, dtype=torch.long)).float()
    embeddings = torch.cat([fixed, *(y.float() for y in media.values()), words], dim=1)
    table = decoder.llm.get_input_embeddings().weight
    hidden = decoder.llm.base_model(
        inputs_embeds=embeddings.to(table.dtype), use_cache=False
    ).last_hidden_state
    logits = decoder.logits(hidden[:, -text - 1 :].flatten(0, 1)).float()
    targets = torch.zeros(len(logits), dtype=torch.long)
    return nn.functional.cross_entropy(logits, targets)
