"""Published Llama-SMoP and Llama-AVSR checkpoints: into a model of this project, and back.

A checkpoint is a flat state dict of everything, bases included: ``audio_encoder.*`` (Whisper's
encoder), ``video_encoder.*`` (AV-HuBERT), ``audiovisual_proj.*`` or ``{audio,video}_proj.*``,
``llm.*`` with ``lora_{down,up}_{Q,V}`` beside the projections that they adapt.
"""

import argparse
import copy
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from espnet_smop.checkpoint.llama_smop.projector_names import load_public, to_public
from espnet_smop.checkpoint.llama_smop.settings import (
    ENCODERS,
    LLM,
    PROJECTORS,
    CheckpointError,
)
from espnet_smop.frontend.avhubert import statistics_names
from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.projector.smop import DEDR, JEJR
from espnet_smop.tasks.avsr import AVSRTask

_EMBEDDINGS = f"{LLM}model.embed_tokens.weight"
_HEAD = f"{LLM}lm_head.weight"
_LETTERS = {"q_proj": "Q", "v_proj": "V"}
# In checkpoints, but no part of what the model computes: AV-HuBERT's pretraining heads, and
# tables that old versions of transformers saved.
_UNUSED = (
    *(f"{ENCODERS['video']}{n}" for n in ("mask_emb", "label_embs_concat", "final_proj.")),
    f"{ENCODERS['video']}target_glu.",
)
_UNUSED_SUFFIX = "rotary_emb.inv_freq"


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a flat state dict, from a PyTorch file (tensors only) or a ``.safetensors`` file.

    Raises:
        CheckpointError: there is no such file, or it holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files of before PyTorch 1.6 cannot be mapped
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError) as e:
        raise CheckpointError(f"{path} cannot be read as a state dict: {_first_line(e)}") from None
    except Exception as e:  # pickle's own errors are of many kinds
        raise CheckpointError(
            f"{path} was not read: it holds more than tensors ({_first_line(e)}). "
            "Save the state dict alone"
        ) from None
    if not isinstance(state, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise CheckpointError(
            f"{path} is no flat state dict: it holds {_kinds(state)}. Save the state dict alone"
        )
    return dict(state)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _kinds(state: Any) -> str:
    if not isinstance(state, Mapping):
        return f"a {type(state).__name__}"
    others = [f"'{k}'" for k, v in state.items() if not isinstance(v, torch.Tensor)]
    return f"entries that are no tensors, such as {', '.join(others[:3])}"


def build(
    state: Mapping[str, torch.Tensor], config: Mapping[str, Any]
) -> tuple[ESPnetAVSRModel, dict[str, str]]:
    """Build the model of a checkpoint, on the bases that its config names.

    Args:
        state: public names and weights.
        config: of `infer_config`.

    Returns:
        The model, and its bases' fingerprints.

    Raises:
        CheckpointError: bases in the checkpoint are other ones, or names or shapes do not fit.
    """
    # In float32, so that comparing with the bases misses nothing.
    settings = copy.deepcopy(dict(config))
    for part in ("audio_frontend", "video_frontend", "decoder"):
        if settings[part] is not None:
            settings[f"{part}_conf"]["dtype"] = "float32"
    args = argparse.Namespace(**settings, base_fingerprints={})
    model = AVSRTask.build_model(args)
    _load(model, state)
    return model.eval(), args.base_fingerprints


def _load(model: ESPnetAVSRModel, state: Mapping[str, torch.Tensor]) -> None:
    used = {name for name in state if name.startswith(_UNUSED) or name.endswith(_UNUSED_SUFFIX)}
    used |= _load_projectors(model, state)
    for prefix, base in _adapted(model):
        used |= _load_lora(state, prefix, base)
    used |= _load_rows(model, state)
    used |= _load_statistics(model, state)
    used |= _compare_bases(model, state)
    if unknown := sorted(state.keys() - used):
        raise CheckpointError(
            f"{len(unknown)} weights of the checkpoint have no place in the model: "
            f"{', '.join(unknown[:5])}"
        )


# -- projectors ------------------------------------------------------------------------------------


def _projectors(model: ESPnetAVSRModel) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Yield the public prefix, router and pool of each projector."""
    mixture = model.projector.mixture
    if isinstance(mixture, JEJR) and not mixture.align.linears:
        yield PROJECTORS[0], mixture.router, mixture.pool
    elif isinstance(mixture, DEDR):
        for modality, pool in mixture.pools.items():
            yield f"{modality}_proj.", mixture.routers[modality], pool
    else:
        raise CheckpointError(
            "public checkpoints have no names for the parts of this projector: only JEJR with "
            "encoders (or stacks of frames) of one width, DEDR and the dense projector have"
        )
    if model.projector.needs_layers:
        raise CheckpointError("public checkpoints have no names for layer fusion")


def _load_projectors(model: ESPnetAVSRModel, state: Mapping[str, torch.Tensor]) -> set[str]:
    used = set()
    for prefix, router, pool in _projectors(model):
        part = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        try:
            load_public(part, router, pool)
        except ValueError as e:
            raise CheckpointError(f"{prefix}*: {e}") from None
        used |= {prefix + name for name in part}
    return used


# -- adapters --------------------------------------------------------------------------------------


def _adapted(model: ESPnetAVSRModel) -> Iterator[tuple[str, nn.Module]]:
    """Yield the public prefix of each base that may have adapters, and the base."""
    yield LLM, model.decoder.llm
    if "video" in model.frontends:
        yield ENCODERS["video"], model.frontends["video"].encoder


def _lora_places(prefix: str, base: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the public names and, as views, the adapters' weights."""
    for name, layer in base.named_modules():
        if isinstance(layer, LoraLayer):
            attention, _, projection = name.rpartition(".")
            if projection not in _LETTERS:
                raise CheckpointError(f"public checkpoints have no name for adapters on {name}")
            letter = _LETTERS[projection]
            for direction, part in (("down", layer.lora_A), ("up", layer.lora_B)):
                weight = part["default"].weight.detach()
                yield f"{prefix}{attention}.lora_{direction}_{letter}.weight", weight


def _load_lora(state: Mapping[str, torch.Tensor], prefix: str, base: nn.Module) -> set[str]:
    used = set()
    for name, weight in _lora_places(prefix, base):
        if name not in state:
            raise CheckpointError(f"the checkpoint has no {name}, but has adapters elsewhere")
        if state[name].shape != weight.shape:
            raise CheckpointError(
                f"{name} has shape {tuple(state[name].shape)}, expected {tuple(weight.shape)}"
            )
        weight.copy_(state[name])
        used.add(name)
    return used


# -- what the public code added or changed in the bases --------------------------------------------


def _load_rows(model: ESPnetAVSRModel, state: Mapping[str, torch.Tensor]) -> set[str]:
    """Take the added tokens' input and output embeddings, and with them the delimiters."""
    decoder = model.decoder
    table = decoder.llm.get_input_embeddings().weight
    head = state.get(_HEAD, state[_EMBEDDINGS])
    if head.shape != state[_EMBEDDINGS].shape:
        shapes = f"{tuple(head.shape)} and {tuple(state[_EMBEDDINGS].shape)}"
        raise CheckpointError(f"{_HEAD} and {_EMBEDDINGS} have shapes {shapes}")
    tied = decoder.llm.get_output_embeddings().weight is table
    if tied and not torch.equal(head, state[_EMBEDDINGS]):
        raise CheckpointError(
            f"the LLM's input and output embeddings are one, but {_EMBEDDINGS} and {_HEAD} differ"
        )
    if not tied and _HEAD not in state:
        raise CheckpointError(f"the checkpoint has no {_HEAD}")
    first = len(table)
    with torch.no_grad():
        decoder.extra_rows.input.copy_(state[_EMBEDDINGS][first:])
        decoder.extra_rows.output.copy_(head[first:])
        decoder.delimiters.copy_(decoder.extra_rows.input[-len(decoder.delimiters) :])
    return set()


def _load_statistics(model: ESPnetAVSRModel, state: Mapping[str, torch.Tensor]) -> set[str]:
    if "video" not in model.frontends:
        return set()
    encoder = model.frontends["video"].encoder
    buffers = dict(encoder.named_buffers())
    used = set()
    for name in statistics_names(encoder):
        public = ENCODERS["video"] + name
        if public not in state:
            if name.endswith("num_batches_tracked"):
                continue
            raise CheckpointError(f"the checkpoint has no {public}")
        if state[public].shape != buffers[name].shape:
            raise CheckpointError(
                f"{public} has shape {tuple(state[public].shape)}, the given AV-HuBERT "
                f"{tuple(buffers[name].shape)}"
            )
        buffers[name].copy_(state[public])
        used.add(public)
    return used


# -- the bases -------------------------------------------------------------------------------------


def _bases(model: ESPnetAVSRModel) -> Iterator[tuple[str, str, nn.Module, set[str]]]:
    """Yield option, public prefix, module, and names that need not be equal."""
    if "audio" in model.frontends:
        yield "--whisper", ENCODERS["audio"], model.frontends["audio"].encoder, set()
    if "video" in model.frontends:
        encoder = model.frontends["video"].encoder
        yield "--avhubert", ENCODERS["video"], encoder, set(statistics_names(encoder))
    yield "--llm", LLM, model.decoder.llm, set()


def _compare_bases(model: ESPnetAVSRModel, state: Mapping[str, torch.Tensor]) -> set[str]:
    used, problems = set(), []
    for option, prefix, base, free in _bases(model):
        weights = {
            prefix + name.replace(".base_layer.", "."): weight
            for name, weight in nn.Module.state_dict(base).items()
            if "lora_" not in name and name.replace(".base_layer.", ".") not in free
        }
        given = {name: state[name] for name in weights if name in state}
        for name in given.keys() & {_EMBEDDINGS, _HEAD}:
            given[name] = given[name][: len(weights[name])]
        used |= given.keys()
        shapes = [
            f"{name} {tuple(value.shape)} instead of {tuple(weights[name].shape)}"
            for name, value in given.items()
            if value.shape != weights[name].shape
        ]
        dtypes = short_dtypes(given.values())
        for kind, names in (
            # A head that is tied to the embeddings need not be there.
            ("missing in the checkpoint", sorted(weights.keys() - given.keys() - {_HEAD})),
            ("of another shape", shapes),
            (
                "with other values",
                [n for n, v in given.items() if not _same(v, weights[n], dtypes)],
            ),
        ):
            if names and not (kind == "with other values" and shapes):
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                problems.append(f"{kind}: {', '.join(names[:3])}{more} ({option})")
    if problems:
        raise CheckpointError(
            "the checkpoint was trained on other base models than those given; "
            + "; ".join(problems)
        )
    return used


def short_dtypes(tensors: Iterable[torch.Tensor]) -> list[torch.dtype]:
    """Return the 16-bit dtypes that hold all values of the tensors without loss.

    A model may have been trained or saved in a shorter precision than that in which its bases are
    published: then its base weights are the published ones rounded, all of them.
    """
    dtypes = [torch.float16, torch.bfloat16]
    for tensor in tensors:
        if tensor.is_floating_point():
            dtypes = [d for d in dtypes if torch.equal(tensor.to(d).float(), tensor.float())]
    return dtypes


def _same(given: torch.Tensor, base: torch.Tensor, dtypes: list[torch.dtype]) -> bool:
    """Tell whether a checkpoint's weight is the base's, perhaps rounded to one of the dtypes."""
    given = given.float()
    return torch.equal(given, base.float()) or any(
        torch.equal(given, base.to(dtype).float()) for dtype in dtypes
    )


# -- back ------------------------------------------------------------------------------------------


def public_state(model: ESPnetAVSRModel) -> dict[str, torch.Tensor]:
    """Return the weights of the projectors and adapters under their public names.

    Raises:
        CheckpointError: the model has trained parts that public checkpoints have no names for.
    """
    state = {}
    for prefix, router, pool in _projectors(model):
        state |= {prefix + name: tensor for name, tensor in to_public(router, pool).items()}
    for prefix, base in _adapted(model):
        state |= {name: weight.clone() for name, weight in _lora_places(prefix, base)}
    return state


def write_back(
    model: ESPnetAVSRModel, original: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return a checkpoint with all that is in ``original`` and this model's trained weights.

    Args:
        model: an imported model, perhaps trained further.
        original: the checkpoint that it was imported from.

    Raises:
        CheckpointError: the two are not of one architecture.
    """
    trained = public_state(model)
    for name, tensor in trained.items():
        if name not in original or original[name].shape != tensor.shape:
            found = tuple(original[name].shape) if name in original else "not there"
            raise CheckpointError(f"{name}: {tuple(tensor.shape)}, in the original {found}")
    state = {**original, **trained}
    delimiters = model.decoder.delimiters.detach()
    for name in (_EMBEDDINGS, _HEAD) if _is_tied(original) else (_EMBEDDINGS,):
        table = original[name].clone()
        table[-len(delimiters) :] = delimiters.to(table.dtype)
        state[name] = table
    return {name: state[name] for name in original}


def _is_tied(state: Mapping[str, torch.Tensor]) -> bool:
    return _HEAD in state and torch.equal(state[_HEAD], state[_EMBEDDINGS])
