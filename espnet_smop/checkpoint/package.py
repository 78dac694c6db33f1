"""A trained model as a package: one directory or zip file that others can decode with.

It holds ``config.yaml``, ``model.safetensors`` (the trained weights), ``tokenizer/``,
``prompts.json``, ``README.md`` (the model card), ``RESULTS.md`` if there are results, and
``meta.yaml``. The config names the base models with their fingerprints; their files are in
``bases/`` if they were included.
"""

import contextlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from espnet2.torch_utils.safe_torch_load import safe_torch_load
from safetensors.torch import save_file

from espnet_smop import __version__
from espnet_smop.base_model import (
    BaseModelError,
    locate,
    resolve_relative_to,
    vocabulary_fingerprint,
)
from espnet_smop.checkpoint.archive import (
    SUFFIXES,
    WEIGHTS_SUFFIXES,
    PackageError,
    extract,
    write_zip,
)
from espnet_smop.checkpoint.model_card import model_card
from espnet_smop.class_path import check_outside
from espnet_smop.config import named_models
from espnet_smop.decoder.tokenizer import load_tokenizer
from espnet_smop.fileio.atomic import atomic_directory, atomic_path
from espnet_smop.modality import MODALITIES
from espnet_smop.views import TASKS, tasks_of

CONFIG = "config.yaml"
WEIGHTS = "model.safetensors"
_EXPERIMENT_WEIGHTS = "valid.acc.ave.pth"
_TOKENIZER = "tokenizer"
_PATTERNS = tuple(f"*{suffix}" for suffix in sorted(SUFFIXES))

MODEL_KEYS = (
    "audio_frontend",
    "audio_frontend_conf",
    "video_frontend",
    "video_frontend_conf",
    "projector",
    "projector_conf",
    "decoder",
    "decoder_conf",
    "preprocessor",
    "preprocessor_conf",
    "use_preprocessor",
    "model_conf",
    "inference_conf",
    "base_fingerprints",
)
"""Settings that define and decode a model; nothing else is read from a package's config."""

# Training settings, for readers of the config; data paths are left out.
_TRAINING_KEYS = (
    "optim",
    "optim_conf",
    "scheduler",
    "scheduler_conf",
    "batch_type",
    "batch_bins",
    "batch_limits",
    "accum_grad",
    "grad_clip",
    "max_epoch",
    "num_iters_per_epoch",
    "keep_nbest_models",
    "train_dtype",
    "use_amp",
    "seed",
)
_INFERENCE_KEYS = ("beam_size", "nbest", "length_penalty", "max_new_tokens", "max_length_ratio")
# Name of each part's base model in `AVSRSpeech2Text.from_pretrained`.
_BASES = {"audio_frontend": "whisper", "video_frontend": "avhubert", "decoder": "llm"}


# -- making ----------------------------------------------------------------------------------------


def pack(
    experiment: str | Path,
    model_file: str | Path,
    out: str | Path,
    *,
    include_bases: bool = False,
    inference: Mapping[str, Any] | None = None,
    name: str | None = None,
    license: str | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Make a package of an experiment.

    Args:
        experiment: directory with ``config.yaml``.
        model_file: checkpoint in it (or anywhere), as training writes it.
        out: a ``.zip`` file, or a directory; an existing package is replaced.
        include_bases: copy the base models into the package.
        inference: decoding settings to recommend where the experiment's config has none.
        name: title of the model card; None is the experiment's name.
        license: licence identifier for the model card.
        dtype: of the stored weights; a model converts them to its own. None is the checkpoint's.

    Raises:
        PackageError: a part of the package is missing, or a weight is too large for the dtype.
        BaseModelError: a base model to include cannot be found.
    """
    experiment, out = Path(experiment), Path(out)
    title = name or experiment.resolve().name
    checkpoint = Path(model_file) if Path(model_file).is_file() else experiment / model_file

    def write(directory: Path) -> None:
        config = _config_to_pack(experiment, inference or {})
        sources = named_models(config)
        _write_weights(checkpoint, directory / WEIGHTS, dtype)
        _write_tokenizer(config, experiment, directory)
        if include_bases:
            _copy_bases(config, sources, experiment, directory)
        _dump(config, directory / CONFIG)
        _write_prompts(config, directory)
        results = _copy_results(experiment, directory)
        _write_meta(directory)
        _write_card(config, sources, experiment, directory, title, license, results)

    if out.suffix == ".zip":
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pack.", dir=out.parent) as temporary:
            write(Path(temporary))
            with atomic_path(out) as partial:
                write_zip(Path(temporary), partial)
        return out
    if out.exists() and not (out / "meta.yaml").is_file() and any(out.iterdir()):
        raise PackageError(f"{out} exists and is not a package: choose another --out")
    with atomic_directory(out) as directory:
        write(directory)
    return out


def _config_to_pack(experiment: Path, inference: Mapping[str, Any]) -> dict[str, Any]:
    settings = _read_config(experiment / CONFIG)
    config = {k: settings[k] for k in (*MODEL_KEYS, *_TRAINING_KEYS) if k in settings}
    if not config.get("base_fingerprints"):
        raise PackageError(
            f"{experiment / CONFIG} has no base_fingerprints: give the config.yaml that training "
            "or importing wrote"
        )
    if config.get("preprocessor_conf", {}).get("noise"):
        config["preprocessor_conf"]["noise"] = None
    recommended = {k: v for k, v in inference.items() if k in _INFERENCE_KEYS}
    config["inference_conf"] = {**recommended, **(config.get("inference_conf") or {})}
    return config


def _parts(config: Mapping[str, Any]) -> list[str]:
    """Return the parts of a config's model that may have a base model."""
    return [part for part in _BASES if config.get(part) is not None]


def _class_paths(config: Mapping[str, Any]) -> list[str]:
    """Return the classes of a config that are named as ``module:Class``."""
    kinds = [key.removesuffix("_conf") for key in MODEL_KEYS if key.endswith("_conf")]
    return [str(config[k]) for k in kinds if ":" in str(config.get(k) or "")]


def _read_config(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PackageError(f"{path} does not exist") from None
    except Exception as e:  # YAMLError, and others for values that do not fit their tags
        cause = next(iter(str(e).splitlines()), type(e).__name__)
        raise PackageError(f"{path} is not a config: {cause}") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("decoder_conf"), dict):
        raise PackageError(f"{path} is not the config of a model: it has no decoder_conf")
    return settings


def _dump(content: Mapping[str, Any], path: Path) -> None:
    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def _write_weights(checkpoint: Path, out: Path, dtype: torch.dtype | None) -> None:
    if not checkpoint.is_file():
        raise PackageError(f"there is no checkpoint {checkpoint}: train or import the model first")
    state = safe_torch_load(checkpoint, map_location="cpu")
    if not isinstance(state, Mapping) or not all(torch.is_tensor(v) for v in state.values()):
        raise PackageError(
            f"{checkpoint} is not a model file: give one such as {_EXPERIMENT_WEIGHTS}, not "
            "checkpoint.pth, which is for resuming"
        )
    # Cloned, because safetensors refuses tensors that share memory.
    weights = {k: v.detach().clone().contiguous() for k, v in state.items()}
    if dtype is not None:
        weights = {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights.items()}
        for name, weight in weights.items():
            if not weight.isfinite().all() and state[name].isfinite().all():
                raise PackageError(f"{name} of {checkpoint} overflows {dtype}: leave --dtype out")
    save_file(weights, out)


def _write_tokenizer(config: dict[str, Any], experiment: Path, directory: Path) -> None:
    """Write the tokenizer, and name it in the config."""
    conf = config["decoder_conf"]
    tokenizer, gguf_file = conf.get("tokenizer"), conf.get("gguf_file")
    if tokenizer or conf.get("model"):
        place = resolve_relative_to(tokenizer or conf["model"], experiment)
        loaded = load_tokenizer(place, None if tokenizer else gguf_file)
        found = vocabulary_fingerprint(loaded.get_vocab())
        expected = config["base_fingerprints"].get("decoder.tokenizer", found)
        if found != expected:
            raise PackageError(
                f"the tokenizer in {place} is not the one used in training (fingerprint {found}, "
                f"expected {expected}): check decoder_conf in {experiment / CONFIG}"
            )
        loaded.save_pretrained(directory / _TOKENIZER)
        conf["tokenizer"] = _TOKENIZER


def _write_prompts(config: Mapping[str, Any], directory: Path) -> None:
    modalities = [m for m in MODALITIES if config.get(f"{m}_frontend")]
    tasks = tasks_of((config.get("model_conf") or {}).get("tasks"), modalities)
    prompt = config["decoder_conf"].get("prompt")
    prompts = {
        "+".join(TASKS[t]): prompt.get(t) if isinstance(prompt, Mapping) else prompt for t in tasks
    }
    text = json.dumps(prompts, indent=2, ensure_ascii=False) + "\n"
    (directory / "prompts.json").write_text(text, encoding="utf-8")


def _copy_results(experiment: Path, directory: Path) -> str:
    """Copy ``RESULTS.md`` and return its text; empty if there is none."""
    source = experiment / "RESULTS.md"
    if not source.is_file():
        return ""
    shutil.copyfile(source, directory / "RESULTS.md")
    return source.read_text(encoding="utf-8")


def _write_meta(directory: Path) -> None:
    versions = {p: version(p) for p in ("espnet", "torch", "transformers", "peft")}
    _dump({"format": 1, "espnet_smop": __version__, **versions}, directory / "meta.yaml")


def _write_card(
    config: Mapping[str, Any],
    sources: Mapping[str, str],
    experiment: Path,
    directory: Path,
    title: str,
    license: str | None,
    results: str,
) -> None:
    card = model_card(
        config,
        title=title,
        license=license,
        base_models=sources,
        on_hub=[s for s in sources.values() if not is_local(resolve_relative_to(s, experiment))],
        class_paths=[path for path in _class_paths(config) if not path.startswith("espnet_smop.")],
        results=results,
    )
    (directory / "README.md").write_text(card, encoding="utf-8")


def _copy_bases(
    config: dict[str, Any], sources: Mapping[str, str], experiment: Path, directory: Path
) -> None:
    """Copy the base models, and name the copies in the config."""
    for part, source in sources.items():
        place = f"bases/{_BASES[part]}"
        _copy_base(resolve_relative_to(source, experiment), directory / place)
        config[f"{part}_conf"]["model"] = place


def _copy_base(source: str, target: Path) -> None:
    path = locate(source, patterns=_PATTERNS)
    target.mkdir(parents=True)
    for file in sorted(path.iterdir()):
        if file.is_file() and file.suffix in SUFFIXES:
            shutil.copyfile(file, target / file.name)
    if not any(file.suffix in WEIGHTS_SUFFIXES for file in target.iterdir()):
        raise PackageError(
            f"{path} cannot be included: it has no weights as {' or '.join(WEIGHTS_SUFFIXES)}. "
            "Save it again with save_pretrained, or leave --include_bases out"
        )


def is_local(model: str) -> bool:
    """Return whether a ``model:`` is a path rather than a hub id."""
    path = Path(model).expanduser()
    return path.exists() or path.is_absolute() or model.count("/") > 1 or model.startswith(".")


# -- opening ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_package(model: str | Path) -> Iterator[Path]:
    """Provide the directory of a package, which may be a directory, a zip file or a hub id.

    Raises:
        PackageError: it is none of these, or the zip file is unsafe to extract.
    """
    path = Path(model).expanduser()
    if path.is_file():
        with tempfile.TemporaryDirectory(prefix="espnet_smop.") as temporary:
            extract(path, Path(temporary))
            yield Path(temporary)
        return
    if path.is_dir() and not (path / CONFIG).is_file():
        raise PackageError(
            f"{path} is neither a package nor an experiment: it has no {CONFIG}{_models_in(path)}"
        )
    if not path.exists() and len(path.parts) > 1 and path.parent.is_dir():
        raise PackageError(f"there is no {path}{_models_in(path.parent)}")
    try:
        directory = locate(str(model), patterns=_PATTERNS)
    except BaseModelError as e:
        cause = type(e.__cause__).__name__ if e.__cause__ else "not a hub id"
        raise PackageError(
            f"{model} is neither a directory nor a zip file, and cannot be found on the hub "
            f"({cause})"
        ) from e
    yield directory


def _models_in(directory: Path) -> str:
    """Return the names of the packages and experiments in a directory, for an error."""
    names = sorted(str(p.parent) for p in directory.glob(f"*/{CONFIG}"))
    names += sorted(str(p) for p in directory.glob("*.zip"))
    return f"; there are {', '.join(names)}" if names else ""


def package_files(directory: Path) -> list[Path]:
    """Return the files of a package, relative to its directory."""
    return sorted(
        p.relative_to(directory)
        for p in directory.rglob("*")
        if p.is_file() and not p.is_symlink() and p.suffix in SUFFIXES
    )


def contents(package: Path) -> dict[str, int]:
    """Return the files of a package made by `pack`, with their sizes in bytes."""
    if package.is_dir():
        return {str(file): (package / file).stat().st_size for file in package_files(package)}
    with zipfile.ZipFile(package) as archive:
        return {entry.filename: entry.file_size for entry in archive.infolist()}


def weights_file(directory: Path) -> Path:
    """Return the trained weights of a package, or of an experiment directory."""
    for name in (WEIGHTS, _EXPERIMENT_WEIGHTS):
        if (directory / name).is_file():
            return directory / name
    raise PackageError(f"{directory} has neither {WEIGHTS} nor {_EXPERIMENT_WEIGHTS}")


def resolved_config(
    directory: Path, bases: Mapping[str, str | None], *, origin: Path | None = None
) -> dict[str, Any]:
    """Return the config of a package with the locations of its base models on this machine.

    Args:
        directory: of the package or experiment.
        bases: ``whisper`` (of the audio frontend), ``avhubert`` (of the video frontend), ``llm``
            → directory or hub id that replaces the config's.
        origin: directory of the package's zip file; base models may be named relative to it.
    """

    def resolve(model: str) -> str:
        found = resolve_relative_to(model, directory)
        return resolve_relative_to(model, origin) if found == model and origin else found

    settings = _read_config(directory / CONFIG)
    config = {k: settings[k] for k in MODEL_KEYS if k in settings}
    for class_path in _class_paths(config):
        check_outside(class_path, directory)
    for part, base in _BASES.items():
        if part in _parts(config):
            conf = config[f"{part}_conf"]
            for key in ("model", "tokenizer"):
                if conf.get(key):
                    conf[key] = resolve(conf[key])
            if bases.get(base):
                conf["model"] = bases[base]
        elif bases.get(base):
            raise PackageError(f"{base} was given, but the model has none")
    return config
