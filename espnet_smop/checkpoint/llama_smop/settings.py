"""The settings of a published Llama-SMoP or Llama-AVSR checkpoint, as a config of this project.

What the weights' shapes tell is read off them, what they do not tell is an option with the
published models' value as default, and an option that the shapes contradict is an error.
"""

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig

from espnet_smop.decoder.prompt import prompt_for
from espnet_smop.decoder.tokenizer import load_tokenizer, locate_llm

ADDED_TOKENS = ("<pad>", "<audio>", "</audio>", "<video>", "</video>")
"""What the public code adds to the LLM's vocabulary, in this order."""

ENCODERS = {"audio": "audio_encoder.", "video": "video_encoder."}
PROJECTORS = ("audiovisual_proj.", "audio_proj.", "video_proj.")
LLM = "llm."

RATES = {"audio": 4, "video": 2}
"""Frames per token of the released checkpoint; average pooling leaves no trace in the weights."""

FRONTENDS = "espnet_smop.checkpoint.llama_smop.frontends"
"""The module of the public code's frontends, in class paths of configs."""

REFERENCE = {
    "audio_frontend": f"{FRONTENDS}:PublicWhisperFrontend",
    "audio_frontend_conf": {"padding": "30s"},
    "projector_conf": {"downsample": {"remainder": "drop"}},
    "preprocessor_conf": {"video_multiple": "rate"},
    "inference_conf": {"beam_size": 15, "length_penalty": 1.0, "max_new_tokens": 32},
}
"""The preset ``reference``: the public code's choices that are no matter of weights.

Whisper hears 30 s, its output is cut to ``max(int(float32(samples) / 16000 · 50), 25)`` frames;
the video is cut to a multiple of its downsampling rate before it is encoded, and frames left
over by pooling are dropped; beams are scored as Hugging Face's ``generate`` does by default, in up
to 32 tokens. Frozen delimiters and renormalised top-K weights belong to the weights and are set
whatever the preset. An utterance alone then gets what it gets there. For losses of padded batches
as there, use the ``Unmasked`` frontends.
"""

PRESETS = {"reference": REFERENCE, "none": {}}

TRAINING = {
    "optim": "adamw",
    "optim_conf": {"lr": 1.0e-3, "betas": [0.9, 0.98], "weight_decay": 0.1},
    "grad_clip": 10,
    "max_epoch": 10,
    "num_att_plot": 0,
    "best_model_criterion": [["valid", "acc", "max"]],
}
"""How the published models were trained, for training to go on from them."""


class CheckpointError(RuntimeError):
    """A checkpoint is not what it should be, or contradicts what is said about it."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user says about a checkpoint; None where the weights or `RATES` shall tell.

    Attributes:
        rank: the public code's ``--rank``, by which the LLM's width is divided.
        alpha: its ``--alpha``: the adapters' scale is ``alpha / rank``.
        num_experts: experts of each pool.
        top_k: experts per token.
        audio_rate: audio frames per token.
        video_rate: video frames per token.
        downsample: ``avgpool`` or ``stack``.
        prompt: the instruction; None is the papers' for the modalities.
        preset: a key of `PRESETS`.
    """

    rank: int | None = None
    alpha: float = 4
    num_experts: int | None = None
    top_k: int = 2
    audio_rate: int | None = None
    video_rate: int | None = None
    downsample: str | None = None
    prompt: str | None = None
    preset: str = "reference"


@dataclass(frozen=True)
class _Projector:
    """Sizes of a projector; ``num_experts`` is 0 for a dense one."""

    num_experts: int
    input_size: int
    hidden_size: int
    output_size: int
    layer_norm: bool


def infer_config(
    state: Mapping[str, torch.Tensor],
    *,
    llm: str,
    whisper: str | None,
    avhubert: str | None,
    tokenizer: str | None = None,
    options: Options = Options(),
) -> dict[str, Any]:
    """Return the config of the experiment that a flat state dict is of.

    Args:
        state: public names and weights.
        llm: directory or hub id of the LLM.
        whisper: of the Whisper model; needed if the checkpoint has an audio encoder.
        avhubert: of the AV-HuBERT; needed if the checkpoint has a video encoder.
        tokenizer: of the tokenizer, if it is not beside the LLM.
        options: what the weights do not tell.

    Raises:
        CheckpointError: it is no such checkpoint, or shapes, options and bases contradict.
    """
    _check_names(state)
    widths = _encoder_widths(state)
    bases = {"audio": (whisper, "--whisper"), "video": (avhubert, "--avhubert")}
    for modality in widths:
        if bases[modality][0] is None:
            raise CheckpointError(
                f"the checkpoint has an {modality} encoder: say by {bases[modality][1]} which"
            )
    projectors = _projectors(state, widths)
    hidden_size, extra = _check_llm(state, llm, tokenizer)
    for prefix, projector in projectors.items():
        if projector.output_size != hidden_size:
            raise CheckpointError(
                f"{prefix}* makes tokens of width {projector.output_size}, but the LLM's "
                f"embeddings have {hidden_size}"
            )
    config: dict[str, Any] = {}
    for modality, kind in (("audio", "whisper"), ("video", "avhubert")):
        config[f"{modality}_frontend"] = kind if modality in widths else None
        config[f"{modality}_frontend_conf"] = (
            {"model": bases[modality][0]} if modality in widths else {}
        )
    if "video" in widths:
        config["video_frontend_conf"] |= {
            "own_statistics": True,
            "lora": _video_lora(state),
        }
    downsample = _downsample(widths, projectors, options)
    config |= _projector_config(projectors, downsample, options)
    config["decoder"] = "llm"
    config["decoder_conf"] = {
        "model": llm,
        "tokenizer": tokenizer,
        "lora": _llm_lora(state, hidden_size, options),
        "prompt": options.prompt or prompt_for(widths),
        "train_delimiters": False,
        "num_extra_rows": extra,
    }
    config |= {"preprocessor": "avsr", "preprocessor_conf": {}, "use_preprocessor": True}
    config |= {"model_conf": {}, "inference_conf": {}}
    return {**_with_preset(config, options.preset), **copy.deepcopy(TRAINING)}


def _check_names(state: Mapping[str, torch.Tensor]) -> None:
    known = (*ENCODERS.values(), *PROJECTORS, LLM)
    unknown = sorted({name.split(".")[0] for name in state if not name.startswith(known)})
    if unknown:
        raise CheckpointError(
            f"no part of a Llama-SMoP or Llama-AVSR model: {', '.join(unknown[:5])}. Expected is "
            "a flat state dict with names like llm.model.embed_tokens.weight; in a Lightning "
            "checkpoint it is the entry 'state_dict' without 'model.' before the names"
        )


def _shape(state: Mapping[str, torch.Tensor], name: str) -> tuple[int, ...]:
    if name not in state:
        raise CheckpointError(f"the checkpoint has no {name}")
    return tuple(state[name].shape)


def _encoder_widths(state: Mapping[str, torch.Tensor]) -> dict[str, int]:
    signature = {"audio": "conv1.weight", "video": "post_extract_proj.weight"}
    kind = {"audio": "Whisper's", "video": "AV-HuBERT's"}
    widths = {}
    for modality, prefix in ENCODERS.items():
        if any(name.startswith(prefix) for name in state):
            name = prefix + signature[modality]
            if name not in state:
                raise CheckpointError(
                    f"the {modality} encoder is not {kind[modality]}: there is no {name}"
                )
            widths[modality] = state[name].shape[0]
    if not widths:
        raise CheckpointError(f"the checkpoint has no {' and no '.join(ENCODERS.values())}*")
    return widths


def _projectors(
    state: Mapping[str, torch.Tensor], widths: Mapping[str, int]
) -> dict[str, _Projector]:
    found = {}
    for prefix in PROJECTORS:
        names = [name.removeprefix(prefix) for name in state if name.startswith(prefix)]
        if names:
            found[prefix] = _projector(state, prefix, names)
    joint = PROJECTORS[0]
    wanted = {joint} if joint in found else {f"{modality}_proj." for modality in widths}
    if found.keys() != wanted:
        raise CheckpointError(
            f"encoders of {' and '.join(widths)} go with projectors "
            f"{' and '.join(sorted(wanted))}*, but there are {', '.join(found) or 'none'}"
        )
    if joint in found and not found[joint].num_experts:
        raise CheckpointError(f"{joint}* is one dense projector for both modalities: not supported")
    return found


def _projector(state: Mapping[str, torch.Tensor], prefix: str, names: list[str]) -> _Projector:
    first = prefix
    num_experts = 0
    if "gate.weight" in names:
        num_experts = state[f"{prefix}gate.weight"].shape[0]
        experts = {int(n.split(".")[1]) for n in names if n.startswith("experts.")}
        if experts != set(range(num_experts)):
            raise CheckpointError(
                f"{prefix}gate.weight is for {num_experts} experts, but there are those of number "
                f"{', '.join(map(str, sorted(experts))) or 'none'}"
            )
        first = f"{prefix}experts.0."
    hidden_size, input_size = _shape(state, f"{first}0.weight")
    return _Projector(
        num_experts=num_experts,
        input_size=input_size,
        hidden_size=hidden_size,
        output_size=_shape(state, f"{first}2.weight")[0],
        layer_norm=f"{first}3.weight" in state,
    )


def _check_llm(
    state: Mapping[str, torch.Tensor], llm: str, tokenizer: str | None
) -> tuple[int, int]:
    """Return the LLM's width and the number of rows added to its vocabulary."""
    rows, width = _shape(state, f"{LLM}model.embed_tokens.weight")
    directory, _ = locate_llm(llm, None, weights=True)
    config = AutoConfig.from_pretrained(directory)
    if config.hidden_size != width:
        raise CheckpointError(
            f"the checkpoint's LLM has width {width}, '{llm}' has {config.hidden_size}"
        )
    extra = rows - config.vocab_size
    if extra != len(ADDED_TOKENS):
        raise CheckpointError(
            f"the checkpoint's vocabulary has {rows} tokens and that of '{llm}' "
            f"{config.vocab_size}: expected are {len(ADDED_TOKENS)} more, {' '.join(ADDED_TOKENS)}"
        )
    words = load_tokenizer(tokenizer or llm)
    vocabulary = words.get_vocab()
    for i, token in enumerate(ADDED_TOKENS):
        if vocabulary.get(token, config.vocab_size + i) != config.vocab_size + i:
            raise CheckpointError(
                f"{token} has the id {vocabulary[token]} in the tokenizer of '{tokenizer or llm}', "
                f"but {config.vocab_size + i} in the checkpoint"
            )
    if len(words) > rows:
        raise CheckpointError(
            f"the tokenizer of '{tokenizer or llm}' has {len(words)} tokens, the checkpoint {rows}"
        )
    return width, extra


def _rate(name: str, given: int | None, told: int) -> int:
    if given is not None and given != told:
        raise CheckpointError(f"{name} {given}: by the projector's width it is {told}")
    return told


def _downsample(
    widths: Mapping[str, int], projectors: Mapping[str, _Projector], options: Options
) -> dict[str, Any]:
    given = {"audio": options.audio_rate, "video": options.video_rate}
    inputs = {
        m: projectors.get(f"{m}_proj.", projectors.get(PROJECTORS[0])).input_size for m in widths
    }
    for modality, size in inputs.items():
        if size % widths[modality]:
            raise CheckpointError(
                f"the projector's input of width {size} is no multiple of the {modality} encoder's "
                f"{widths[modality]}"
            )
    pooled = all(inputs[m] == widths[m] for m in widths)
    mode = options.downsample or ("avgpool" if pooled else "stack")
    if mode == "avgpool" and not pooled:
        raise CheckpointError(
            f"--downsample avgpool: projectors of input {inputs} on encoders of width "
            f"{dict(widths)} were trained with stacked frames"
        )
    rates = {}
    for m in widths:
        if mode == "stack":
            rates[m] = _rate(f"--{m}_rate", given[m], inputs[m] // widths[m])
        else:
            rates[m] = RATES[m] if given[m] is None else given[m]
            if rates[m] < 1:
                raise CheckpointError(f"--{m}_rate {rates[m]}: expected is 1 or more")
            if given[m] is None:
                logging.info(
                    "%s frames per token: %d, as in the published model; the weights do not tell "
                    "(--%s_rate)", m, rates[m], m,
                )  # fmt: skip
    return {"mode": mode, **rates}


def _projector_config(
    projectors: Mapping[str, _Projector], downsample: dict[str, Any], options: Options
) -> dict[str, Any]:
    sizes = {(p.hidden_size, p.layer_norm) for p in projectors.values()}
    if len(sizes) > 1:
        raise CheckpointError(
            "the projectors differ in hidden width or LayerNorm: "
            + ", ".join(f"{k}* {p}" for k, p in projectors.items())
        )
    [(hidden_size, layer_norm)] = sizes
    numbers = {p.num_experts for p in projectors.values()}
    if options.num_experts is not None and {options.num_experts} != (numbers - {0} or {1}):
        raise CheckpointError(
            f"--num_experts {options.num_experts}: by the weights it is {sorted(numbers)}"
        )
    conf = {"hidden_size": hidden_size, "downsample": downsample}
    if numbers == {0}:
        return {"projector": "mlp", "projector_conf": {**conf, "layer_norm": layer_norm}}
    if options.top_k > min(numbers - {0}):
        raise CheckpointError(f"--top_k {options.top_k}: there are {min(numbers - {0})} experts")
    joint = PROJECTORS[0] in projectors
    by_modality = {k.removesuffix("_proj."): p.num_experts or 1 for k, p in projectors.items()}
    conf |= {
        "routing": "jejr" if joint else "dedr",
        "num_experts": by_modality["audiovisual"] if joint else by_modality,
        "top_k": options.top_k,
        "normalize_top_k": True,
        "expert_layer_norm": layer_norm,
        "load_balancing_weight": 0.01,
        "router_z_weight": 0.001,
    }
    return {"projector": "smop", "projector_conf": conf}


def _llm_lora(
    state: Mapping[str, torch.Tensor], width: int, options: Options
) -> dict[str, Any] | None:
    name = f"{LLM}model.layers.0.self_attn.lora_down_Q.weight"
    if name not in state:
        if options.rank is not None:
            raise CheckpointError(f"--rank {options.rank}: the checkpoint's LLM has no adapters")
        return None
    inner = state[name].shape[0]
    possible = [rank for rank in range(1, width + 1) if round(width / rank) == inner]
    if options.rank is not None and options.rank not in possible:
        raise CheckpointError(
            f"--rank {options.rank}: adapters of inner width {inner} in an LLM of width {width} "
            f"mean {_choices(possible)}"
        )
    rank = options.rank
    if rank is None:
        if not possible:
            raise CheckpointError(f"adapters of inner width {inner} fit no rank; give --rank")
        rank = possible[0] if width % inner else width // inner
        if len(possible) > 1:
            logging.warning(
                "adapters of inner width %d mean a rank of %s: taking %d. If the model was trained "
                "with another, give --rank", inner, _choices(possible), rank,
            )  # fmt: skip
    return {"r": inner, "alpha": _number(inner * options.alpha / rank), "target_modules": _QV[:]}


_QV = ["q_proj", "v_proj"]
_VIDEO_LORA_SCALE = 2


def _video_lora(state: Mapping[str, torch.Tensor]) -> dict[str, Any] | None:
    name = f"{ENCODERS['video']}encoder.layers.0.self_attn.lora_down_Q.weight"
    if name not in state:
        return None
    inner = state[name].shape[0]
    return {"r": inner, "alpha": _VIDEO_LORA_SCALE * inner, "target_modules": _QV[:]}


def _choices(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _number(value: float) -> int | float:
    return int(value) if value == int(value) else value


def _with_preset(config: dict[str, Any], preset: str) -> dict[str, Any]:
    if preset not in PRESETS:
        raise CheckpointError(f"--preset {preset}: known are {', '.join(PRESETS)}")
    for part, settings in copy.deepcopy(PRESETS[preset]).items():
        if part.startswith("audio") and config["audio_frontend"] is None:
            continue
        if not isinstance(settings, dict):
            config[part] = settings
            continue
        if settings.get("video_multiple") == "rate":
            settings["video_multiple"] = config["projector_conf"]["downsample"].get("video", 1)
        for name, value in settings.items():
            if isinstance(value, dict):
                value = {**config[part].get(name, {}), **value}
            config[part][name] = value
    return config
