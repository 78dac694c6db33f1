"""Checks of a training and a decoding before they start.

Nothing is written, no weights are read, and the model is built on the meta device.
"""

import argparse
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import soundfile
import yaml

from espnet_smop.base_model import (
    RECIPE_DIRECTORIES,
    BaseModelError,
    cached_directory,
    check_fetchable,
    local_directory,
    resolve_relative_to,
)
from espnet_smop.class_path import is_own
from espnet_smop.config import ConfigError, load_config
from espnet_smop.experiments.check_data import existing
from espnet_smop.fileio.sound import SoundFileError, check_rate
from espnet_smop.fileio.table import read_table
from espnet_smop.fileio.video import VideoFileError, read_video
from espnet_smop.inference import DEFAULTS, decoding_problems
from espnet_smop.modality import MODALITIES
from espnet_smop.model import ESPnetAVSRModel
from espnet_smop.skeleton import skeleton
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.tasks.defaults import default_options
from espnet_smop.tasks.problems import model_problems, parameter_problems, settings_problems
from espnet_smop.tasks.registered import decoder_choices
from espnet_smop.tasks.settings import finite_problems, gpu_problems
from espnet_smop.train.augmentation import crop
from espnet_smop.train.lock import lock_holder
from espnet_smop.train.resume import ChangedConfigError, check_resumed_config

DATA, FORMAT, FILTER, BASE_MODELS, NOISE, TRAIN, DECODE = 1, 3, 4, 6, 7, 11, 12
"""Stages of the driver."""

# Stand-ins for missing base models, so that the other settings are still checked.
_STAND_INS = {
    "audio_frontend": "openai/whisper-tiny",
    "video_frontend": "avhubert_large",
    "decoder": "HuggingFaceTB/SmolLM2-135M",
}
_ARGUMENTS = "--inference_args"
# Per trained parameter: in an epoch's checkpoint, and in one with optimizer state to resume from.
_BYTES_EPOCH, _BYTES_RESUME = 4, 12


def training_problems(
    args: argparse.Namespace,
    *,
    stages: Collection[int] = (TRAIN, DECODE),
    data_dirs: Sequence[Path] = (),
    inference_config: Path | None = None,
    inference_args: str = "",
) -> list[str]:
    """Return what would make the stages of a recipe fail.

    Args:
        args: training arguments.
        stages: those that will run; what earlier ones make need not exist yet.
        data_dirs: formatted data directories that training and decoding read, or if the
            formatting stage will run, its input directories.
        inference_config: decoding config.
        inference_args: more arguments for ``avsr_inference``.
    """
    problems = list(settings_problems(args))
    problems += _base_model_problems(args, is_made_later=BASE_MODELS in stages)
    model = None
    if not list(finite_problems(args)) and not list(model_problems(args)):
        try:
            model = _build(args)
        except (OSError, RuntimeError, ValueError) as e:
            problems += [str(e)]
        else:
            problems += [] if model is None else parameter_problems(args, model)
    if NOISE not in stages:
        problems += _noise_problems(args)
    if not {DATA, FORMAT, FILTER} & set(stages):
        problems += _formatted_problems(args, data_dirs)
    if TRAIN in stages:
        problems += gpu_problems(args.ngpu)
        problems += _experiment_problems(args, model)
    if DECODE in stages and inference_config is not None:
        problems += _decoding_problems(args, inference_config, inference_args)
    return _one_line_each(problems)


def decoding_problems_of(
    experiment: Path,
    *,
    data_dirs: Sequence[Path] = (),
    inference_config: Path | None = None,
    inference_args: str = "",
) -> list[str]:
    """Return what would make the decoding of a trained model fail.

    Args:
        experiment: its directory.
        data_dirs: formatted data directories of the test sets.
        inference_config: decoding config.
        inference_args: more arguments for ``avsr_inference``.
    """
    settings = yaml.safe_load((experiment / "config.yaml").read_text(encoding="utf-8"))
    args = argparse.Namespace(**settings)
    for _, conf in _base_confs(args):
        for key in ("model", "tokenizer"):
            if isinstance(conf.get(key), str):
                conf[key] = resolve_relative_to(conf[key], experiment)
    problems = list(model_problems(args))
    problems += _base_model_problems(args, is_made_later=False)
    problems += _formatted_problems(args, data_dirs)
    if inference_config is not None:
        problems += _decoding_problems(args, inference_config, inference_args)
    return _one_line_each(problems)


def _one_line_each(problems: Sequence[str]) -> list[str]:
    return [" ".join(p.split()) if not p.count("\n") else p for p in problems]


def _base_confs(args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in _STAND_INS:
        conf = getattr(args, f"{part}_conf")
        if getattr(args, part) is not None and isinstance(conf, Mapping):
            yield part, conf


def _base_model_problems(args: argparse.Namespace, *, is_made_later: bool) -> Iterator[str]:
    for part, conf in _base_confs(args):
        for key in ("model", "tokenizer"):
            name = conf.get(key)
            if name is None:
                continue
            if not isinstance(name, str):
                continue
            if is_made_later and not Path(name).expanduser().exists() and _is_local(name):
                continue
            try:
                directory = _gguf_directory(name) or local_directory(name)
                if directory is None and _is_local(name):
                    raise BaseModelError(f"there is no directory '{name}': stage 6 makes it")
                if directory is None and cached_directory(name) is None:
                    check_fetchable(name)
                elif directory is not None and key == "model" and not is_own(getattr(args, part)):
                    _check_files(name, directory, part)
            except BaseModelError as e:
                yield f"{part}_conf.{key}: {e}"


def _gguf_directory(model: str) -> Path | None:
    path = Path(model).expanduser()
    return path.parent if path.suffix == ".gguf" and path.is_file() else None


def _is_local(model: str) -> bool:
    """Return whether a name is a directory rather than a hub id."""
    parent = Path(model).expanduser().parent
    return len(parent.parts) != 1 or parent.is_dir() or parent.name in RECIPE_DIRECTORIES


def _check_files(model: str, directory: Path, part: str) -> None:
    """Raise BaseModelError if files of a local base model are missing."""
    patterns = ["*.safetensors"] if part != "decoder" else ["*.safetensors", "*.gguf", "*.bin"]
    is_gguf = any(directory.glob("*.gguf"))
    if not (directory / "config.json").is_file() and not (part == "decoder" and is_gguf):
        raise BaseModelError(f"there is no config.json in '{model}'")
    if not any(path for pattern in patterns for path in directory.glob(pattern)):
        raise BaseModelError(f"there are no weights ({', '.join(patterns)}) in '{model}'")
    index = directory / "model.safetensors.index.json"
    if index.is_file() and not (directory / "model.safetensors").is_file():
        files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        missing = sorted(file for file in files if not (directory / file).is_file())
        if missing:
            raise BaseModelError(
                f"{missing[0]} of model.safetensors.index.json is not in '{model}'"
            )


def _build(args: argparse.Namespace) -> ESPnetAVSRModel | None:
    """Build the model on the meta device, from local base models, skeletons or stand-ins."""
    changed = argparse.Namespace(**vars(args))
    with tempfile.TemporaryDirectory() as temporary:
        for part, conf in _base_confs(args):
            if not isinstance(conf.get("model"), str) or _gguf_directory(conf["model"]):
                continue
            new = dict(conf)
            new["model"] = str(_skeleton(conf["model"], part, Path(temporary)))
            if part == "decoder" and new.get("tokenizer") is not None:
                if new["model"].startswith(temporary):
                    new.pop("tokenizer")  # a skeleton's own fits its vocabulary
                elif not _is_here(new["tokenizer"]):
                    new["tokenizer"] = str(skeleton(_STAND_INS[part], Path(temporary)))
            setattr(changed, f"{part}_conf", new)
        return AVSRTask.build_skeleton(changed)


def _is_here(model: str) -> bool:
    try:
        return (local_directory(model) or cached_directory(model)) is not None
    except BaseModelError:
        return False


def _skeleton(model: str, part: str, directory: Path) -> Path:
    try:
        local = local_directory(model) or cached_directory(model)
        if local is None:
            return skeleton(model, directory)
        if (local / "config.json").is_file():
            return local
    except BaseModelError:
        pass
    return skeleton(_STAND_INS[part], directory)


def _noise_problems(args: argparse.Namespace) -> Iterator[str]:
    conf = args.preprocessor_conf
    noise = conf.get("noise") if isinstance(conf, Mapping) else None
    if args.audio_frontend is None or not isinstance(noise, Mapping) or noise.get("snr") is None:
        return
    file = noise.get("file")  # if missing, the settings' check reports it
    if isinstance(file, str) and not Path(file).is_file():
        yield (
            f"preprocessor_conf.noise: there is no file {file}. Stage 7 makes babble; "
            "null trains without noise"
        )


def _formatted_problems(args: argparse.Namespace, data_dirs: Sequence[Path]) -> Iterator[str]:
    """Yield problems of formatted data directories: missing files, audio not at 16 kHz."""
    for directory in data_dirs:
        if not directory.is_dir():
            yield f"data directory {directory} does not exist"
            continue
        if not (directory / "text").is_file():
            yield f"{directory} has no text"
        for modality in MODALITIES.values():
            if getattr(args, f"{modality.name}_frontend") is None:
                continue
            scp = directory / modality.scp
            if not scp.is_file():
                yield f"{directory} has no {modality.scp}, which the {modality.name}_frontend takes"
            else:
                yield from _sample_problems(scp, modality.name)


def _sample_problems(scp: Path, modality: str) -> Iterator[str]:
    """Yield what is wrong with the first file of a list."""
    path = next(iter(read_table(scp, ConfigError).values()), None)
    if path is None:
        yield f"{scp} is empty"
        return
    try:
        if modality == "audio":
            check_rate(path, soundfile.info(path).samplerate)
        else:
            crop(read_video(path), random=False)
    except SoundFileError as e:
        yield f"{scp}: {e}"
    except soundfile.SoundFileError as e:
        yield f"{scp}: {path} cannot be read ({' '.join(str(e).split())})"
    except VideoFileError as e:
        yield f"{scp}: {e}"
    except ValueError as e:
        yield f"{scp}: {path}: {e}"


def _experiment_problems(args: argparse.Namespace, model: ESPnetAVSRModel | None) -> Iterator[str]:
    if args.output_dir is None:
        return
    directory = Path(args.output_dir)
    if directory.exists() and not directory.is_dir():
        yield f"--output_dir {directory} is not a directory"
        return
    if (holder := lock_holder(directory)) is not None:
        yield f"{directory}: {holder} trains here; wait until it ends, or choose another --avsr_tag"
    try:
        check_resumed_config(_with_data_of(args, directory / "config.yaml"), default_options(args))
    except ChangedConfigError as e:
        yield str(e)
    parent = existing(directory)
    if not os.access(parent, os.W_OK):
        yield f"{parent} is not writable"
    if model is not None:
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        epochs = max(_as_list(args.keep_nbest_models)) + 3  # kept, current, average, temporary
        needed = trained * (_BYTES_EPOCH * epochs + 2 * _BYTES_RESUME)
        free = shutil.disk_usage(parent).free
        if free < needed:
            yield (
                f"{parent} has {free / 2**30:.1f} GiB free, the checkpoints need "
                f"{needed / 2**30:.1f}: free some, or choose another --expdir"
            )


def _as_list(value: int | Sequence[int]) -> list[int]:
    return list(value) if isinstance(value, Sequence) else [value]


def _with_data_of(args: argparse.Namespace, config: Path) -> argparse.Namespace:
    """Return arguments, with the data of an experiment if they name none."""
    if not config.is_file():
        return args
    before = yaml.safe_load(config.read_text(encoding="utf-8"))
    kept = {
        name: before[name]
        for kind in ("train", "valid")
        for name in (f"{kind}_data_path_and_name_and_type", f"{kind}_shape_file")
        if not getattr(args, name) and name in before
    }
    return argparse.Namespace(**{**vars(args), **kept})


def _decoding_problems(
    args: argparse.Namespace, config: Path, inference_args: str
) -> Iterator[str]:
    try:
        settings = load_config(config)
    except ConfigError as e:
        yield str(e)
        return
    given, words = {}, iter(shlex.split(inference_args))
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        given[name] = yaml.safe_load(value if equals else next(words, ""))
    found = [*decoding_problems(settings, str(config)), *decoding_problems(given, _ARGUMENTS)]
    yield from found
    settings |= given
    if isinstance(settings.get("ngpu"), int):
        yield from gpu_problems(settings["ngpu"], "decode")
    if not found:
        generation = {k: v for k, v in settings.items() if k in DEFAULTS and v is not None}
        try:
            decoder_choices.get_class(args.decoder).check_generation(
                {**DEFAULTS, **args.inference_conf, **generation}
            )
        except ValueError as e:
            yield f"{config}{f' with {_ARGUMENTS}' if given else ''}: {e}"
