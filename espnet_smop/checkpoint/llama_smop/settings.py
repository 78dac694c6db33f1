"""The settings of a public checkpoint, as a config of this project.

Settings that the shapes of the weights determine are derived from them. The others are options,
whose defaults are the published models' values. An option that contradicts the shapes is an error.
"""

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoConfig

from espnet_smop.checkpoint.llama_smop.names import (
    ADAPTERS,
    EMBEDDINGS,
    ENCODERS,
    LLM,
    PROJECTORS,
    PROMPT,
    TASKS,
    CheckpointError,
)
from espnet_smop.decoder.mome import MOME
from espnet_smop.decoder.prompt import prompt_for
from espnet_smop.decoder.tokenizer import load_tokenizer, locate_llm
from espnet_smop.views import TASKS as MODALITIES_OF
from espnet_smop.views import rate_pairs_of, rates_tag

ADDED_TOKENS = ("<pad>", "<audio>", "</audio>", "<video>", "</video>")
"""Tokens that the public code adds to the LLM's vocabulary, in this order."""

RATES = {"audio": 4, "video": 2}
"""Frames per token of the released checkpoint; average pooling leaves no trace in the weights."""

SEVERAL_RATES = {"audio": (4, 16), "video": (2, 5)}
"""The same for Omni-AVSR's released checkpoints, which have several rates."""

TASK_WEIGHTS = (1.0, 1.5, 1.0)
"""Omni-AVSR's loss weights of ASR, VSR and AVSR."""

FRONTENDS = "espnet_smop.checkpoint.llama_smop.frontends"
"""Module of the public code's frontends, for the class paths in configs."""

PRESETS = ("reference", "none")
"""Whether to compute as the public code does where the weights leave the choice.

With ``reference``, Whisper's input is padded to 30 s and its output cut to
``max(int(float32(samples) / 16000 · 50), 25)`` frames; the video is cut to a multiple of its
downsampling rate before it is encoded, if it has a single one; frames left over by pooling are
dropped; beams are scored as Hugging Face's ``generate`` does by default, with up to 32 tokens. The
result for a single utterance is then the public code's. To reproduce its losses on padded batches
as well, use the ``Unmasked`` frontends.

Frozen delimiters and renormalised top-K weights belong to the weights and are set in both presets.
"""

TRAINING = {
    "optim": "adamw",
    "optim_conf": {"lr": 1.0e-3, "betas": [0.9, 0.98], "weight_decay": 0.1},
    "grad_clip": 10,
    "max_epoch": 10,
    "num_att_plot": 0,
    "best_model_criterion": [["valid", "acc", "max"]],
}
"""How the published models were trained, for further training."""

_NAMES = {"audio": "whisper", "video": "avhubert"}
_QV = ("q_proj", "v_proj")
_LORA_KINDS = {
    "lora_down_Q.weight": None,
    "lora_down_Q.audio.weight": "task",
    "local_loras.0.lora_down_Q.weight": "rates",
}
"""The first weight of LoRA → ``per`` in ``decoder_conf.lora``."""
_LORA_OF_ALL = {"task": "lora_down_Q_shared.weight", "rates": "global_lora.lora_down_Q.weight"}
_VIDEO_LORA_SCALE = 2


@dataclass(frozen=True, kw_only=True)
class Options:
    """Settings given by the user; None means that the weights or `RATES` determine them.

    Attributes:
        rank: the public code's ``--rank``, the factor by which LoRA reduces the LLM's width:
            width 2048 and rank 32 mean adapters of inner width 2048 / 32 = 64.
        alpha: the public code's ``--alpha``; LoRA's scale is ``alpha / rank``.
        num_experts: experts of each pool.
        top_k: experts per token.
        audio_rate: audio frames per token; for a model of several rates, all of them in order.
        video_rate: likewise.
        task_weights: loss weights of ASR, VSR and AVSR in a model of several tasks.
        downsample: ``avgpool`` or ``stack``.
        mome_top_k: experts per token of the LLM's mixtures of adapters; or one number for each
            pair of rates, in order.
        mome_place: place of the mixtures, ``mhsa``, ``ffn`` or ``layer``.
        prompt: instruction of a single-task model; None is the papers' for the modalities.
        preset: one of `PRESETS`.
    """

    rank: int | None = None
    alpha: float = 4
    num_experts: int | None = None
    top_k: int = 2
    audio_rate: int | tuple[int, ...] | None = None
    video_rate: int | tuple[int, ...] | None = None
    task_weights: tuple[float, float, float] = TASK_WEIGHTS
    downsample: str | None = None
    mome_top_k: int | tuple[int, ...] = MOME["top_k"]
    mome_place: str = MOME["place"]
    prompt: str | None = None
    preset: str = "reference"


@dataclass(frozen=True)
class _Projector:
    """Sizes of a modality's projector, or of its projectors for each rate.

    ``num_experts`` is 0 for a dense one; ``input_sizes`` has one for each rate.
    """

    num_experts: int
    per_rate: bool
    input_sizes: tuple[int, ...]
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
    """Return the config of an experiment for a flat state dict.

    Args:
        state: weights by public names.
        llm: directory or hub id of the LLM.
        whisper: directory or hub id of the Whisper model; required if the checkpoint has an audio
            encoder.
        avhubert: directory or hub id of AV-HuBERT; required if the checkpoint has a video
            encoder.
        tokenizer: its directory or hub id; None is the LLM's.
        options: settings that the weights do not determine.

    Raises:
        CheckpointError: not a public checkpoint, or shapes, options and base models conflict.
    """
    _check_names(state)
    if options.preset not in PRESETS:
        raise CheckpointError(f"--preset {options.preset}: choose from {', '.join(PRESETS)}")
    widths = _encoder_widths(state)
    bases = {"audio": whisper, "video": avhubert}
    for modality in widths:
        if bases[modality] is None:
            raise CheckpointError(
                f"the checkpoint has {modality} encoder weights: give --{_NAMES[modality]}"
            )
    projectors = _projectors(state, widths)
    hidden_size, num_added = _check_llm(state, llm, tokenizer)
    for modality, projector in projectors.items():
        if projector.output_size != hidden_size:
            raise CheckpointError(
                f"{PROJECTORS[modality]}* makes tokens of width {projector.output_size}, but the "
                f"LLM's embeddings have width {hidden_size}"
            )
    config: dict[str, Any] = {}
    for modality, frontend in _NAMES.items():
        present = modality in widths
        config[f"{modality}_frontend"] = frontend if present else None
        config[f"{modality}_frontend_conf"] = {"model": bases[modality]} if present else {}
    if "video" in widths:
        config["video_frontend_conf"] |= {"own_statistics": True, "lora": _video_lora(state)}
    config |= _projector_config(
        projectors, _downsample(state, widths, projectors, options), options
    )
    config["decoder"] = "llm"
    config["decoder_conf"] = {
        "model": llm,
        "tokenizer": tokenizer,
        "lora": _llm_lora(state, hidden_size, options),
        "prompt": _prompt(state, widths, options),
        "train_delimiters": False,
        "num_extra_rows": num_added,
    }
    mome = _llm_mome(state, config["projector_conf"]["downsample"], options)
    if mome is not None:
        config["decoder_conf"]["mome"] = mome
    config |= {"preprocessor": "avsr", "preprocessor_conf": {}, "use_preprocessor": True}
    config |= {"model_conf": _model_conf(state, config, options), "inference_conf": {}}
    if options.preset == "reference":
        _compute_as_reference(config)
    return {**config, **copy.deepcopy(TRAINING)}


def _compute_as_reference(config: dict[str, Any]) -> None:
    """Apply the preset ``reference``, see `PRESETS`."""
    downsample = config["projector_conf"]["downsample"]
    downsample["remainder"] = "drop"
    if config["audio_frontend"] is not None:
        config["audio_frontend"] = f"{FRONTENDS}:PublicWhisperFrontend"
        config["audio_frontend_conf"]["padding"] = "30s"
    rate = downsample.get("video", 1)
    config["preprocessor_conf"]["video_multiple"] = rate if isinstance(rate, int) else 1
    config["inference_conf"] = {"beam_size": 15, "length_penalty": 1.0, "max_new_tokens": 32}


# -- settings from names and shapes ----------------------------------------------------------------


def _check_names(state: Mapping[str, torch.Tensor]) -> None:
    known = (*ENCODERS.values(), *PROJECTORS.values(), PROMPT, LLM)
    unknown = sorted({name.split(".")[0] for name in state if not name.startswith(known)})
    if unknown:
        raise CheckpointError(
            f"not part of a Llama-SMoP or Llama-AVSR model: {', '.join(unknown[:5])}. Expected "
            "a flat state dict with names like llm.model.embed_tokens.weight; in a Lightning "
            "checkpoint it is the entry 'state_dict', with the prefix 'model.' removed"
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
    """Return the sizes of each projector, by ``audiovisual``, or ``audio`` and ``video``."""
    found = {
        modality: _projector(state, prefix)
        for modality, prefix in PROJECTORS.items()
        if any(name.startswith(prefix) for name in state)
    }
    wanted = {"audiovisual"} if "audiovisual" in found else set(widths)
    if found.keys() != wanted:
        raise CheckpointError(
            f"encoders of {' and '.join(widths)} need projectors of "
            f"{' and '.join(sorted(wanted))}, found {', '.join(found) or 'none'}"
        )
    if "audiovisual" in found and not found["audiovisual"].num_experts:
        raise CheckpointError(
            f"{PROJECTORS['audiovisual']}* is one dense projector for both modalities, which is "
            "not supported"
        )
    return found


def _projector(state: Mapping[str, torch.Tensor], prefix: str) -> _Projector:
    """Return the sizes of a projector, or of a list of dense ones, one for each rate."""
    numbers = {name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)}
    if f"{prefix}0.0.weight" in state:
        found = [_one_projector(state, f"{prefix}{i}.") for i in sorted(map(int, numbers))]
        if len({replace(p, input_sizes=()) for p in found}) > 1:
            raise CheckpointError(f"the projectors {prefix}* differ in more than their inputs")
        sizes = tuple(size for p in found for size in p.input_sizes)
        return replace(found[0], per_rate=True, input_sizes=sizes)
    return _one_projector(state, prefix)


def _one_projector(state: Mapping[str, torch.Tensor], prefix: str) -> _Projector:
    num_experts, first = 0, prefix
    if f"{prefix}gate.weight" in state:
        num_experts, first = len(state[f"{prefix}gate.weight"]), f"{prefix}experts.0."
        part = f"{prefix}experts."
        experts = {int(n.removeprefix(part).split(".")[0]) for n in state if n.startswith(part)}
        if experts != set(range(num_experts)):
            raise CheckpointError(
                f"{prefix}gate.weight is for {num_experts} experts, but the checkpoint has the "
                f"experts {', '.join(map(str, sorted(experts))) or '(none)'}"
            )
    hidden_size, input_size = _shape(state, f"{first}0.weight")
    return _Projector(
        num_experts=num_experts,
        per_rate=False,
        input_sizes=(input_size,),
        hidden_size=hidden_size,
        output_size=_shape(state, f"{first}2.weight")[0],
        layer_norm=f"{first}3.weight" in state,
    )


def _check_llm(
    state: Mapping[str, torch.Tensor], llm: str, tokenizer: str | None
) -> tuple[int, int]:
    """Return the LLM's width and the number of tokens added to its vocabulary."""
    rows, width = _shape(state, EMBEDDINGS)
    directory, _ = locate_llm(llm, None, weights=True)
    config = AutoConfig.from_pretrained(directory)
    if config.hidden_size != width:
        raise CheckpointError(
            f"the checkpoint's LLM has width {width}, '{llm}' has {config.hidden_size}"
        )
    added = rows - config.vocab_size
    if added != len(ADDED_TOKENS):
        raise CheckpointError(
            f"the checkpoint's vocabulary has {rows} tokens and that of '{llm}' "
            f"{config.vocab_size}: expected exactly {len(ADDED_TOKENS)} more: "
            f"{' '.join(ADDED_TOKENS)}"
        )
    words = load_tokenizer(tokenizer or llm)
    vocabulary = words.get_vocab()
    for i, token in enumerate(ADDED_TOKENS, start=config.vocab_size):
        if vocabulary.get(token, i) != i:
            raise CheckpointError(
                f"{token} has the id {vocabulary[token]} in the tokenizer of '{tokenizer or llm}', "
                f"but {i} in the checkpoint"
            )
    if len(words) > rows:
        raise CheckpointError(
            f"the tokenizer of '{tokenizer or llm}' has {len(words)} tokens, the checkpoint {rows}"
        )
    return width, added


# -- tasks -----------------------------------------------------------------------------------------


def _tasks(state: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the tasks of a checkpoint of several tasks; none if it has one."""
    return [task for public, task in TASKS.items() if f"{PROMPT}{public}" in state]


def _model_conf(
    state: Mapping[str, torch.Tensor], config: Mapping[str, Any], options: Options
) -> dict[str, Any]:
    tasks = _tasks(state)
    if tasks:
        weights = dict(zip(TASKS.values(), options.task_weights, strict=True))
        return {"tasks": {task: weights[task] for task in tasks}, "rate_pairs": "sample"}
    if "per_rate" in config["projector_conf"]:  # Llama-MTSK
        return {"rate_pairs": "all"}
    return {}


def _prompt(
    state: Mapping[str, torch.Tensor], widths: Mapping[str, int], options: Options
) -> str | dict[str, str]:
    tasks = _tasks(state)
    if tasks and options.prompt:
        raise CheckpointError("--prompt: the checkpoint has several tasks, each with its prompt")
    if tasks:
        return {task: prompt_for(MODALITIES_OF[task]) for task in tasks}
    return options.prompt or prompt_for(widths)


# -- settings from shapes and options --------------------------------------------------------------


def _downsample(
    state: Mapping[str, torch.Tensor],
    widths: Mapping[str, int],
    projectors: Mapping[str, _Projector],
    options: Options,
) -> dict[str, Any]:
    given = {"audio": options.audio_rate, "video": options.video_rate}
    given = {m: (rate,) if isinstance(rate, int) else rate for m, rate in given.items()}
    inputs = {m: projectors.get(m, projectors.get("audiovisual")).input_sizes for m in widths}
    for modality, sizes in inputs.items():
        for size in sizes:
            if size % widths[modality]:
                raise CheckpointError(
                    f"the projector's input of width {size} is not a multiple of the {modality} "
                    f"encoder's {widths[modality]}"
                )
    stacked = {m: tuple(size // widths[m] for size in inputs[m]) for m in widths}
    pooled = all(set(rates) == {1} for rates in stacked.values())
    mode = options.downsample or ("avgpool" if pooled else "stack")
    if mode == "avgpool" and not pooled:
        raise CheckpointError(
            f"--downsample avgpool: projectors of input {inputs} on encoders of width "
            f"{dict(widths)} were trained with stacked frames"
        )
    several = _has_several_rates(state, projectors)
    if mode == "stack":
        rates = stacked
    else:
        default = SEVERAL_RATES if several else {m: (rate,) for m, rate in RATES.items()}
        rates = {m: _pooling_rates(m, given[m], default[m]) for m in widths}
    for m, own in rates.items():
        if given[m] not in (None, own):
            raise CheckpointError(
                f"--{m}_rate {_listed(given[m])}: according to the projector's width it is "
                f"{_listed(own)}"
            )
        projector = projectors.get(m)
        if projector and projector.per_rate and len(own) != len(projector.input_sizes):
            raise CheckpointError(
                f"--{m}_rate {_listed(own)}: the checkpoint has {len(projector.input_sizes)} "
                f"projectors {PROJECTORS[m]}*, one for each rate"
            )
    return {"mode": mode, **{m: list(own) if several else own[0] for m, own in rates.items()}}


def _has_several_rates(
    state: Mapping[str, torch.Tensor], projectors: Mapping[str, _Projector]
) -> bool:
    """Whether it is Omni-AVSR's, with prompts in the checkpoint, or has projectors per rate."""
    return any(name.startswith(PROMPT) for name in state) or any(
        projector.per_rate for projector in projectors.values()
    )


def _listed(rates: tuple[int, ...]) -> str:
    return ",".join(map(str, rates))


def _pooling_rates(
    modality: str, given: tuple[int, ...] | None, default: tuple[int, ...]
) -> tuple[int, ...]:
    if given is None:
        logging.info(
            "%s frames per token: %s, as in the published model; the weights do not show it "
            "(--%s_rate)", modality, _listed(default), modality,
        )  # fmt: skip
        return default
    if min(given) < 1:
        raise CheckpointError(f"--{modality}_rate {_listed(given)}: expected 1 or more")
    return given


def _projector_config(
    projectors: Mapping[str, _Projector], downsample: dict[str, Any], options: Options
) -> dict[str, Any]:
    sizes = {(p.hidden_size, p.layer_norm, p.per_rate) for p in projectors.values()}
    if len(sizes) > 1:
        raise CheckpointError(
            "the projectors differ in hidden width, LayerNorm or rates: "
            + ", ".join(f"{PROJECTORS[m]}* {p}" for m, p in projectors.items())
        )
    [(hidden_size, layer_norm, per_rate)] = sizes
    conf = {"hidden_size": hidden_size, "downsample": downsample}
    if per_rate:
        conf["per_rate"] = True
    num_experts = {m: p.num_experts or 1 for m, p in projectors.items()}
    sparse = [p.num_experts for p in projectors.values() if p.num_experts]
    if options.num_experts is not None and {options.num_experts} != set(sparse or [1]):
        raise CheckpointError(
            f"--num_experts {options.num_experts}, but the weights have "
            f"{' and '.join(map(str, sorted(set(num_experts.values()))))} experts"
        )
    if not sparse:
        return {"projector": "mlp", "projector_conf": {**conf, "layer_norm": layer_norm}}
    if options.top_k > min(sparse):
        raise CheckpointError(f"--top_k {options.top_k}: there are {min(sparse)} experts")
    joint = num_experts.get("audiovisual")
    conf |= {
        "routing": "jejr" if joint else "dedr",
        "num_experts": joint or num_experts,
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
    """Return the LLM's LoRA settings.

    The public code's ``--rank`` is not LoRA's rank r but the factor by which the LLM's width is
    reduced to it: with width 2048 and ``--rank 32``, r is 2048 / 32 = 64. The weights hold r only.
    """
    attention = f"{LLM}model.layers.0.self_attn."
    kinds = {f"{attention}{first}": kind for first, kind in _LORA_KINDS.items()}
    name = next((name for name in kinds if name in state), None)
    reduction = options.rank
    if name is None:
        if reduction is not None:
            raise CheckpointError(f"--rank {reduction}: the checkpoint's LLM has no adapters")
        return None
    inner = state[name].shape[0]
    possible = [n for n in range(1, width + 1) if round(width / n) == inner]
    if not possible:
        raise CheckpointError(
            f"adapters of inner width {inner} do not fit an LLM of width {width}: no --rank gives "
            f"{width} / rank = {inner}"
        )
    choices = " to ".join(str(n) for n in dict.fromkeys((possible[0], possible[-1])))
    if reduction is not None and reduction not in possible:
        raise CheckpointError(
            f"--rank {reduction}: adapters of inner width {inner} in an LLM of width {width} mean "
            f"a rank of {choices}"
        )
    if reduction is None:
        reduction = possible[0] if width % inner else width // inner
        if len(possible) > 1:
            logging.warning(
                "adapters of inner width %d mean a rank of %s: using %d. If the model was trained "
                "with another, give --rank", inner, choices, reduction,
            )  # fmt: skip
    alpha = inner * options.alpha / reduction
    per = kinds[name]
    lora = _lora(inner, int(alpha) if alpha == int(alpha) else alpha)
    if per is None:
        return lora
    return {**lora, "per": per, "shared": f"{attention}{_LORA_OF_ALL[per]}" in state}


def _llm_mome(
    state: Mapping[str, torch.Tensor], downsample: Mapping[str, Any], options: Options
) -> dict[str, Any] | None:
    """Return the settings of the mixtures of adapters in the LLM; None if it has none."""
    prefix = ADAPTERS.format(0)
    if not any(name.startswith(prefix) for name in state):
        return None
    parts = [n.removeprefix(prefix).split(".")[:2] for n in state if n.startswith(prefix)]
    num = {kind: len({e for k, e in parts if k == kind}) for kind in ("experts", "shared_experts")}
    given = options.mome_top_k
    given = (given,) if isinstance(given, int) else given
    top_k: int | dict[str, int] = given[0]
    if len(given) > 1:
        pairs = rate_pairs_of({m: downsample[m] for m in RATES if m in downsample})
        if len(given) != len(pairs):
            raise CheckpointError(
                f"--mome_top_k {_listed(given)}: expected one number, or {len(pairs)}, one for "
                "each pair of rates"
            )
        top_k = {rates_tag(pair): k for pair, k in zip(pairs, given, strict=True)}
    return {
        "num_experts": num["experts"],
        "num_shared": num["shared_experts"],
        "top_k": top_k,
        "bottleneck": len(state[f"{prefix}experts.0.linear_downsample.weight"]),
        "place": options.mome_place,
        "router": "shared" if f"{prefix}gate.weight" in state else "per_rate",
    }


def _video_lora(state: Mapping[str, torch.Tensor]) -> dict[str, Any] | None:
    name = f"{ENCODERS['video']}encoder.layers.0.self_attn.lora_down_Q.weight"
    if name not in state:
        return None
    inner = state[name].shape[0]
    return _lora(inner, _VIDEO_LORA_SCALE * inner)


def _lora(inner: int, alpha: float) -> dict[str, Any]:
    return {"r": inner, "alpha": alpha, "target_modules": list(_QV)}
