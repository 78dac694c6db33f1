"""Copying weights between public checkpoints and this project's models."""

import argparse
import copy
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from espnet_smop.checkpoint.llama_smop.names import (
    EMBEDDINGS,
    ENCODERS,
    HEAD,
    LLM,
    PROMPT,
    TASKS,
    CheckpointError,
    copy_from,
    trained_weights,
    video_statistics,
)
from espnet_smop.decoder.prompt import choose_prompt, prompt_ids
from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.views import TASKS as MODALITIES_OF

# In checkpoints but not part of what the model computes: AV-HuBERT's pretraining heads, and tables
# that old versions of transformers saved.
_UNUSED = tuple(
    f"{ENCODERS['video']}{n}"
    for n in ("mask_emb", "label_embs_concat", "final_proj.", "target_glu.")
)
_UNUSED_SUFFIX = "rotary_emb.inv_freq"


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a flat state dict from a PyTorch file (tensors only) or a ``.safetensors`` file.

    Raises:
        CheckpointError: the file is missing, or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files from before PyTorch 1.6 cannot be mapped
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError) as e:
        raise CheckpointError(f"{path} cannot be read as a state dict: {_first_line(e)}") from None
    except Exception as e:  # pickle's own errors are of many kinds
        raise CheckpointError(
            f"{path} was not loaded: it contains objects other than tensors ({_first_line(e)}). "
            "Save the state dict alone"
        ) from None
    if not isinstance(state, Mapping):
        found = f"a {type(state).__name__}"
    elif others := [f"'{k}'" for k, v in state.items() if not isinstance(v, torch.Tensor)]:
        found = f"entries that are not tensors, such as {', '.join(others[:3])}"
    else:
        return dict(state)
    raise CheckpointError(
        f"{path} is not a flat state dict: it holds {found}. Save the state dict alone"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


# -- importing -------------------------------------------------------------------------------------


def build(
    state: Mapping[str, torch.Tensor], config: Mapping[str, Any]
) -> tuple[ESPnetAVSRModel, dict[str, str]]:
    """Build the model of a checkpoint on the base models that its config names.

    Args:
        state: weights by public names.
        config: from `infer_config`.

    Returns:
        The model, and the fingerprints of its base models.

    Raises:
        CheckpointError: the checkpoint holds other base models, or names or shapes do not fit.
    """
    # In float32, so that the comparison with the base models misses nothing.
    settings = copy.deepcopy(dict(config))
    for part in ("audio_frontend", "video_frontend", "decoder"):
        if settings[part] is not None:
            settings[f"{part}_conf"]["dtype"] = "float32"
    args = argparse.Namespace(**settings, base_fingerprints={})
    AVSRTask.check_model(args)
    model = AVSRTask.build_model(args)
    changed = trained_weights(model)
    for name, weight in video_statistics(model).items():
        if name in state or not name.endswith("num_batches_tracked"):
            changed[name] = weight
    copy_from(state, changed)
    _copy_added_rows(state, model)
    known = changed.keys() | _compare_bases(state, model) | _compare_prompts(state, model)
    unknown = sorted(
        name
        for name in state.keys() - known
        if not name.startswith(_UNUSED) and not name.endswith(_UNUSED_SUFFIX)
    )
    if unknown:
        raise CheckpointError(
            f"{len(unknown)} weights of the checkpoint have no place in the model: "
            f"{', '.join(unknown[:5])}"
        )
    return model.eval(), args.base_fingerprints


@torch.no_grad()
def _copy_added_rows(state: Mapping[str, torch.Tensor], model: ESPnetAVSRModel) -> None:
    """Copy the input and output embeddings of the added tokens, the delimiters included."""
    decoder = model.decoder
    table = decoder.llm.get_input_embeddings().weight
    embeddings, head = state[EMBEDDINGS], state.get(HEAD, state[EMBEDDINGS])
    if head.shape != embeddings.shape:
        raise CheckpointError(
            f"{HEAD} and {EMBEDDINGS} have shapes {tuple(head.shape)} and {tuple(embeddings.shape)}"
        )
    tied = decoder.llm.get_output_embeddings().weight is table
    if tied and not torch.equal(head, embeddings):
        raise CheckpointError(
            f"the LLM ties its input and output embeddings, but {EMBEDDINGS} and {HEAD} differ"
        )
    if not tied and HEAD not in state:
        raise CheckpointError(f"the checkpoint has no {HEAD}")
    decoder.extra_rows.input.copy_(embeddings[len(table) :])
    decoder.extra_rows.output.copy_(head[len(table) :])
    decoder.delimiters.copy_(decoder.extra_rows.input[-len(decoder.delimiters) :])


def _bases(model: ESPnetAVSRModel) -> Iterator[tuple[str, str, nn.Module]]:
    """Yield option, public prefix and module of each base model."""
    for option, modality in (("--whisper", "audio"), ("--avhubert", "video")):
        if modality in model.frontends:
            yield option, ENCODERS[modality], model.frontends[modality].encoder
    yield "--llm", LLM, model.decoder.llm


def _compare_bases(state: Mapping[str, torch.Tensor], model: ESPnetAVSRModel) -> set[str]:
    """Check that the base models in a checkpoint equal the model's; return their names."""
    known, problems = set(), []
    changed = video_statistics(model).keys()
    for option, prefix, base in _bases(model):
        weights = {
            prefix + name.replace(".base_layer.", "."): weight
            for name, weight in nn.Module.state_dict(base).items()
            if "lora_" not in name
        }
        weights = {name: weight for name, weight in weights.items() if name not in changed}
        given = {name: state[name] for name in weights if name in state}
        for name in given.keys() & {EMBEDDINGS, HEAD}:
            given[name] = given[name][: len(weights[name])]
        known |= given.keys()
        # A head that is tied to the embeddings may be missing.
        missing = sorted(weights.keys() - given.keys() - {HEAD})
        reshaped = [
            f"{name} {tuple(value.shape)} instead of {tuple(weights[name].shape)}"
            for name, value in given.items()
            if value.shape != weights[name].shape
        ]
        differing = []
        if not reshaped:
            dtypes = short_dtypes(given.values())
            differing = [n for n, v in given.items() if not _same(v, weights[n], dtypes)]
        for kind, names in (
            ("missing in the checkpoint", missing),
            ("of another shape", reshaped),
            ("with other values", differing),
        ):
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                problems.append(f"{kind}: {', '.join(names[:3])}{more} ({option})")
    if problems:
        raise CheckpointError(
            "the checkpoint was trained on other base models than those given; "
            + "; ".join(problems)
        )
    return known


def _compare_prompts(state: Mapping[str, torch.Tensor], model: ESPnetAVSRModel) -> set[str]:
    """Check that the embedded prompts in a checkpoint are the model's; return their names."""
    known = {name for name in state if name.startswith(PROMPT)}
    for name in known:
        task = TASKS.get(name.removeprefix(PROMPT))
        if task not in model.views.tasks:
            raise CheckpointError(f"the checkpoint has {name}, a task that the model does not have")
        words = choose_prompt(model.decoder.prompt, MODALITIES_OF[task])
        _, ids = prompt_ids(model.decoder.tokenizer, words)
        expected = model.decoder.embed(torch.tensor([ids]))
        given = state[name]
        if given.shape != expected.shape or not _same(given, expected, short_dtypes([given])):
            raise CheckpointError(f"{name} is not the prompt '{words}': give --prompt")
    return known


def short_dtypes(tensors: Iterable[torch.Tensor]) -> list[torch.dtype]:
    """Return the 16-bit dtypes that hold all values of the tensors without loss.

    A model may have been trained or saved in a lower precision than that in which its base models
    are published. Then all of its base weights are the published ones rounded.
    """
    dtypes = [torch.float16, torch.bfloat16]
    for tensor in tensors:
        if tensor.is_floating_point():
            dtypes = [d for d in dtypes if torch.equal(tensor.to(d).float(), tensor.float())]
    return dtypes


def _same(given: torch.Tensor, base: torch.Tensor, dtypes: list[torch.dtype]) -> bool:
    """Return whether a weight equals the base model's, possibly rounded to one of the dtypes."""
    given = given.float()
    return torch.equal(given, base.float()) or any(
        torch.equal(given, base.to(dtype).float()) for dtype in dtypes
    )


# -- exporting -------------------------------------------------------------------------------------


def write_back(
    model: ESPnetAVSRModel, original: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return ``original`` with the trained weights of a model.

    Args:
        model: an imported, possibly further trained model.
        original: the checkpoint that it was imported from.

    Raises:
        CheckpointError: the two differ in architecture.
    """
    state = dict(original)
    for name, weight in trained_weights(model).items():
        if name not in original or original[name].shape != weight.shape:
            found = tuple(original[name].shape) if name in original else "missing"
            raise CheckpointError(
                f"{name} has shape {tuple(weight.shape)}, in the original it is {found}"
            )
        state[name] = weight.clone()
    delimiters = model.decoder.delimiters.detach()
    tied = HEAD in original and torch.equal(original[HEAD], original[EMBEDDINGS])
    for name in (EMBEDDINGS, HEAD) if tied else (EMBEDDINGS,):
        state[name] = original[name].clone()
        state[name][-len(delimiters) :] = delimiters.to(state[name].dtype)
    return state
