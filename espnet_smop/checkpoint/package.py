"""A trained model as a package: one directory or zip file that others can decode with.

It holds ``config.yaml``, ``model.safetensors`` (what was trained), ``tokenizer/``,
``prompts.json``, ``README.md`` (the model card), ``RESULTS.md`` if there are results, and
``meta.yaml``. Base models are named in the config, with their fingerprints; with ``bases`` their
files lie in ``bases/``.
"""

import contextlib
import json
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import yaml
from espnet2.torch_utils.safe_torch_load import safe_torch_load
from safetensors.torch import save_file

from espnet_smop import __version__
from espnet_smop.base_model import locate, resolve_relative_to
from espnet_smop.decoder.tokenizer import load_tokenizer
from espnet_smop.fileio.atomic import atomic_directory, atomic_path
from espnet_smop.tasks.class_choices import check_outside

WEIGHTS = "model.safetensors"
CONFIG = "config.yaml"
_TOKENIZER = "tokenizer"
_EXPERIMENTS_WEIGHTS = "valid.acc.ave.pth"

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
"""What a model is built of and decoded with; nothing else of a package's config is used."""

# How it was trained, for whoever reads the config; data and machines stay at home.
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
_BASES = {
    "audio_frontend_conf": "whisper",
    "video_frontend_conf": "avhubert",
    "decoder_conf": "llm",
}

_SUFFIXES = {".yaml", ".json", ".md", ".txt", ".safetensors", ".model", ".jinja", ".gguf"}
"""Of files in packages. None is a format whose reader executes anything."""
_WEIGHTS = (".safetensors", ".gguf")
PATTERNS = tuple(f"*{suffix}" for suffix in sorted(_SUFFIXES))

_MAX_FILES = 1000
_MAX_BYTES = 200 * 2**30
# Weights hardly compress, texts by a factor of 10 or so.
_MAX_RATIO = 100
_SMALL = 2**20


class PackageError(RuntimeError):
    """A package, or what shall become one, is not as it should be."""


# -- making ----------------------------------------------------------------------------------------


def pack(
    experiment: str | Path,
    model_file: str | Path,
    out: str | Path,
    *,
    bases: bool = False,
    inference: Mapping[str, Any] | None = None,
    name: str | None = None,
    license: str | None = None,
) -> Path:
    """Make a package of an experiment.

    Args:
        experiment: directory with ``config.yaml``.
        model_file: the checkpoint in it (or anywhere), as training writes it.
        out: a ``.zip`` file, or a directory, which is replaced.
        bases: put the base models in as well.
        inference: decoding settings to recommend where the experiment's config has none.
        name: title of the model card.
        license: identifier for the model card's header.

    Raises:
        PackageError: something that belongs into it is missing.
        BaseModelError: a base model that shall be included is not to be had.
    """
    experiment, out = Path(experiment), Path(out)
    if out.suffix != ".zip":
        _check_replaceable(out)
        with atomic_directory(out) as directory:
            _write(directory, experiment, model_file, bases, inference, name, license)
        return out
    with tempfile.TemporaryDirectory(prefix=".pack.", dir=_made(out.parent)) as temporary:
        directory = Path(temporary)
        _write(directory, experiment, model_file, bases, inference, name, license)
        with atomic_path(out) as partial:
            _zip(directory, partial)
    return out


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _check_replaceable(out: Path) -> None:
    if out.exists() and not (out / "meta.yaml").is_file() and any(out.iterdir()):
        raise PackageError(f"{out} is there and no package: choose another --out")


def _write(
    directory: Path,
    experiment: Path,
    model_file: str | Path,
    bases: bool,
    inference: Mapping[str, Any] | None,
    name: str | None,
    license: str | None,
) -> None:
    settings = _read_config(experiment / CONFIG)
    config = {k: settings[k] for k in (*MODEL_KEYS, *_TRAINING_KEYS) if k in settings}
    if not config.get("base_fingerprints"):
        raise PackageError(
            f"{experiment / CONFIG} has no base_fingerprints: is it the config.yaml that training "
            "or importing wrote?"
        )
    noise = config.get("preprocessor_conf", {}).get("noise")
    if noise:
        config["preprocessor_conf"]["noise"] = None
    recommended = {k: v for k, v in (inference or {}).items() if k in _INFERENCE_KEYS}
    config["inference_conf"] = {**recommended, **(config.get("inference_conf") or {})}

    checkpoint = Path(model_file)
    if not checkpoint.is_file():
        checkpoint = experiment / model_file
    _write_weights(checkpoint, directory / WEIGHTS)
    conf = config["decoder_conf"]
    tokenizer = conf.get("tokenizer")
    if tokenizer or conf.get("model"):
        words = load_tokenizer(
            resolve_relative_to(tokenizer or conf["model"], experiment),
            None if tokenizer else conf.get("gguf_file"),
        )
        words.save_pretrained(directory / _TOKENIZER)
        conf["tokenizer"] = _TOKENIZER
    sources = {
        part: config[part]["model"]
        for part in _BASES
        if _used(config, part) and config[part].get("model")
    }
    if bases:
        for part, source in sources.items():
            _copy_base(resolve_relative_to(source, experiment), directory / "bases" / _BASES[part])
            config[part]["model"] = f"bases/{_BASES[part]}"
    _dump(config, directory / CONFIG)
    modalities = [m for m in ("audio", "video") if config.get(f"{m}_frontend")]
    prompts = {"+".join(modalities): conf.get("prompt")}
    text = json.dumps(prompts, indent=2, ensure_ascii=False) + "\n"
    (directory / "prompts.json").write_text(text, encoding="utf-8")
    results = experiment / "RESULTS.md"
    if results.is_file():
        shutil.copyfile(results, directory / "RESULTS.md")
    versions = {p: version(p) for p in ("espnet", "torch", "transformers", "peft")}
    _dump({"format": 1, "espnet_smop": __version__, **versions}, directory / "meta.yaml")
    hub = [
        source
        for source in sources.values()
        if not is_local(resolve_relative_to(source, experiment))
    ]
    title = name or experiment.resolve().name
    card = _card(config, sources, hub, modalities, title, license, results)
    (directory / "README.md").write_text(card, encoding="utf-8")


def _class_paths(config: Mapping[str, Any]) -> list[str]:
    """Return the classes of a config that are not of this project."""
    kinds = [key.removesuffix("_conf") for key in MODEL_KEYS if key.endswith("_conf")]
    return [str(config[k]) for k in kinds if ":" in str(config.get(k) or "")]


def _used(config: Mapping[str, Any], part: str) -> bool:
    return config.get(part.removesuffix("_conf")) is not None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PackageError(f"{path} does not exist: a package or experiment has one") from None
    except Exception as e:  # the parser's own, and others for values that do not fit their tags
        cause = next(iter(str(e).splitlines()), type(e).__name__)
        raise PackageError(f"{path} is no config: {cause}") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("decoder_conf"), dict):
        raise PackageError(f"{path} is no config of an AVSR model: it has no decoder_conf")
    return settings


def _dump(content: Mapping[str, Any], path: Path) -> None:
    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def _write_weights(checkpoint: Path, out: Path) -> None:
    if not checkpoint.is_file():
        raise PackageError(f"there is no checkpoint {checkpoint}: train or import the model first")
    state = safe_torch_load(checkpoint, map_location="cpu")
    if not isinstance(state, Mapping) or not all(torch.is_tensor(v) for v in state.values()):
        raise PackageError(
            f"{checkpoint} is no model file: take one such as {_EXPERIMENTS_WEIGHTS}, not "
            "checkpoint.pth, which is for resuming"
        )
    # Tensors of their own, as safetensors has no shared memory.
    save_file({k: v.detach().clone().contiguous() for k, v in state.items()}, out)


def _copy_base(source: str, target: Path) -> None:
    path = locate(source, patterns=PATTERNS)
    target.mkdir(parents=True)
    for file in sorted(path.iterdir()):
        if file.is_file() and file.suffix in _SUFFIXES:
            shutil.copyfile(file, target / file.name)
    if not any(file.suffix in _WEIGHTS for file in target.iterdir()):
        raise PackageError(
            f"{path} cannot be included: it has no weights as {' or '.join(_WEIGHTS)}. Save it "
            "again by save_pretrained, or leave --include_bases out"
        )


def _zip(directory: Path, out: Path) -> None:
    with zipfile.ZipFile(out, "w") as archive:
        for file in sorted(directory.rglob("*")):
            if file.is_file():
                # A fixed date: packing the same again gives the same file.
                entry = zipfile.ZipInfo(file.relative_to(directory).as_posix())
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                entry.compress_type = (
                    zipfile.ZIP_STORED if file.suffix in _WEIGHTS else zipfile.ZIP_DEFLATED
                )
                entry.file_size = file.stat().st_size
                with file.open("rb") as source, archive.open(entry, "w") as sink:
                    shutil.copyfileobj(source, sink, _SMALL)


def _card(
    config: Mapping[str, Any],
    sources: Mapping[str, str],
    hub: list[str],
    modalities: list[str],
    name: str,
    license: str | None,
    results: Path,
) -> str:
    header: dict[str, Any] = {"library_name": "espnet_smop"}
    if license:
        header["license"] = license
    header["tags"] = ["espnet", "automatic-speech-recognition", *(f"{m}-input" for m in modalities)]
    if hub:
        header["base_model"] = hub
    prints = config["base_fingerprints"]
    rows = []
    for part, source in sources.items():
        kind = part.removesuffix("_conf")
        value = next((v for k, v in prints.items() if k.startswith(f"{kind}.")), "")
        where = "in `bases/`" if config[part]["model"].startswith("bases/") else f"`{source}`"
        rows.append(f"| {kind} | {where} | `{value}` |")
    projector = config.get("projector_conf", {})
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False).rstrip(),
        "---",
        f"# {name}",
        "",
        f"Speech recognition from {' and '.join(modalities)} with a large language model, made "
        f"with espnet_smop {__version__}: projector `{config.get('projector')}`"
        + (f", routing `{projector['routing']}`" if "routing" in projector else "")
        + f". This package holds what was trained (`{WEIGHTS}`); the base models are",
        "",
        "| part | base model | fingerprint |",
        "|---|---|---|",
        *rows,
        "",
        "and are checked by their fingerprints when they are loaded. Their licences apply.",
        *(
            f"\nIt needs the class `{class_path}`, which has to be on PYTHONPATH."
            for class_path in _class_paths(config)
        ),
        "",
        f"Prompt: `{config['decoder_conf'].get('prompt')}`",
        "",
        "## Use",
        "",
        "    python -m espnet_smop.bin.transcribe MODEL talk.mp4",
        "",
        "or, with MODEL this directory, the zip file or the hub id,",
        "",
        "    from espnet_smop.inference import AVSRSpeech2Text",
        '    speech2text = AVSRSpeech2Text.from_pretrained("MODEL")',
        "    [(text, *_)] = speech2text(speech=waveform, video=mouth_crops)",
        "",
        "Base models that are local directories are given by `whisper=`, `avhubert=` and `llm=`.",
    ]
    if results.is_file():
        text = results.read_text(encoding="utf-8")
        tables = text[text.find("## exp") :] if "## exp" in text else text
        lines += [
            "",
            "## Results",
            "",
            tables.replace("\n#", "\n##").replace("## exp", "### exp", 1),
        ]
    return "\n".join(lines).rstrip() + "\n"


def is_local(model: str) -> bool:
    """Tell whether a ``model:`` is a path rather than a hub id."""
    path = Path(model).expanduser()
    return path.exists() or path.is_absolute() or model.count("/") > 1 or model.startswith(".")


# -- opening ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_package(model: str | Path) -> Iterator[Path]:
    """Give the directory of a package, which may be a directory, a zip file or a hub id.

    Raises:
        PackageError: the zip file is not a package, or tries to do more than hold files.
        BaseModelError: it is neither there nor on the hub.
    """
    path = Path(model).expanduser()
    if path.is_file():
        with tempfile.TemporaryDirectory(prefix="espnet_smop.") as temporary:
            extract(path, Path(temporary))
            yield Path(temporary)
    else:
        yield locate(str(model), patterns=PATTERNS)


def extract(archive: str | Path, directory: Path) -> None:
    """Extract a package's zip file into an empty directory.

    Raises:
        PackageError: it is no zip file, or an entry has a path out of the directory, is a link
            or a format that could execute something, or there is more in it than can be honest.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            entries = [e for e in file.infolist() if not e.is_dir()]
            _check_entries(archive, file.infolist(), entries)
            for entry in entries:
                target = directory / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open(entry) as source, target.open("xb") as sink:
                    shutil.copyfileobj(source, sink, _SMALL)
    except PackageError:
        raise
    except Exception as e:  # a damaged archive may raise anything
        raise PackageError(f"{archive} cannot be read as a package: {e}") from None


def _check_entries(
    archive: str | Path, everything: list[zipfile.ZipInfo], files: list[zipfile.ZipInfo]
) -> None:
    def refuse(why: str) -> None:
        raise PackageError(f"{archive} is refused: {why}. Packages are made by `package pack`")

    if len(everything) > _MAX_FILES:
        refuse(f"it has {len(everything)} entries, more than {_MAX_FILES}")
    seen = set()
    for entry in everything:
        # As stored: `filename` is cut at a NUL and has other separators replaced.
        stored = entry.orig_filename
        path = PurePosixPath(stored)
        if (
            "\\" in stored
            or ":" in stored
            or any(ord(c) < 32 for c in stored)
            or path.is_absolute()
            or ".." in path.parts
        ):
            refuse(f"the path {stored!r} may lead out of the package")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            refuse(f"{stored!r} is a link or another special file")
        if entry.flag_bits & 0x1:
            refuse(f"{stored!r} is encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            refuse(f"{stored!r} is neither stored nor deflated")
        key = str(path).casefold()
        if key in seen:
            refuse(f"{stored!r} is in it twice")
        seen.add(key)
    for entry in files:
        if PurePosixPath(entry.filename).suffix not in _SUFFIXES:
            refuse(
                f"'{entry.filename}' is of a kind that has no place in a package (it may be a "
                f"pickle or a program): known are {', '.join(sorted(_SUFFIXES))}"
            )
        if entry.file_size > max(_SMALL, _MAX_RATIO * entry.compress_size):
            refuse(
                f"'{entry.filename}' would grow from {entry.compress_size} to "
                f"{entry.file_size} bytes"
            )
    total = sum(entry.file_size for entry in files)
    if total > _MAX_BYTES:
        refuse(f"it would take {total / 2**30:.0f} GiB, more than {_MAX_BYTES // 2**30}")


def package_files(directory: Path) -> list[Path]:
    """Return the files of a package, relative to its directory."""
    return sorted(
        p.relative_to(directory)
        for p in directory.rglob("*")
        if p.is_file() and not p.is_symlink() and p.suffix in _SUFFIXES
    )


def contents(package: Path) -> dict[str, int]:
    """Return the files of a package, a directory or zip file made here, with their sizes."""
    if package.is_dir():
        return {str(file): (package / file).stat().st_size for file in package_files(package)}
    with zipfile.ZipFile(package) as archive:
        return {entry.filename: entry.file_size for entry in archive.infolist()}


def weights_file(directory: Path) -> Path:
    """Return the trained weights of a package, or of an experiment's directory."""
    for name in (WEIGHTS, _EXPERIMENTS_WEIGHTS):
        if (directory / name).is_file():
            return directory / name
    raise PackageError(f"{directory} has neither {WEIGHTS} nor {_EXPERIMENTS_WEIGHTS}")


def resolved_config(
    directory: Path, bases: Mapping[str, str | None], *, origin: Path | None = None
) -> dict[str, Any]:
    """Return the config of a package with the places of its base models in this system.

    Args:
        directory: the package's, or an experiment's.
        bases: ``whisper`` (of the audio frontend), ``avhubert`` (of the video frontend), ``llm``
            → directory or hub id to take instead.
        origin: where the package's zip file lies; its bases may be named from there.
    """

    def found(model: str) -> str:
        here = resolve_relative_to(model, directory)
        return resolve_relative_to(model, origin) if here == model and origin is not None else here

    settings = _read_config(directory / CONFIG)
    config = {k: settings[k] for k in MODEL_KEYS if k in settings}
    for class_path in _class_paths(config):
        check_outside(class_path, directory)
    for part, base in _BASES.items():
        if not _used(config, part):
            if bases.get(base):
                raise PackageError(f"a {base} is given, but the model has none")
            continue
        conf = config[part]
        if bases.get(base) or conf.get("model"):
            conf["model"] = bases.get(base) or found(conf["model"])
        if conf.get("tokenizer"):
            conf["tokenizer"] = found(conf["tokenizer"])
    return config
