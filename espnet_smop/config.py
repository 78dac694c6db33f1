"""Configs that contain only their differences from others.

A config may name other configs as its ``base``, by paths relative to its own directory::

    # conf/train_avsr_dci.yaml
    base: train_base.yaml
    projector: mlp
    projector_conf:
      fusion: {audio: dci, video: dci}

Its settings override the base's: mappings are merged key by key, to any depth; all other values
(numbers, lists, ``null``) are replaced. If it selects a different class than its base
(``projector: mlp`` over ``projector: smop``), the base's ``projector_conf`` is dropped: its
arguments belong to the other class. The same holds if the base names no class and yours is a class
path (``projector: local.mine:MyProjector``). With several bases, ``base: [a.yaml, b.yaml]``, later
ones override earlier ones; a base may have a base itself.
"""

import argparse
import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from espnet_smop.modality import MODALITIES

_BASE = "base"
NULL = ("none", "null", "nil")
"""Values that mean no class, on the command line and in configs; case is ignored."""


class ConfigError(ValueError):
    """A config, or a base that it names, is missing or is not a mapping of settings."""


def load_config(path: str | Path) -> dict[str, Any]:
    """Return the settings of a config merged over those of its bases.

    Raises:
        ConfigError: a file is missing, is not a mapping, or is its own base; names it.
    """
    return _load(Path(path), above=())


def _load(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    named_by = f", the base of {above[-1]}," if above else ""
    if path.resolve() in [p.resolve() for p in above]:
        raise ConfigError(f"{path} is its own base: {' -> '.join(map(str, [*above, path]))}")
    if not path.is_file():
        raise ConfigError(f"config {path}{named_by} does not exist")
    try:
        settings = load_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as e:
        raise ConfigError(f"config {path}{named_by} is not UTF-8: {e.reason}") from None
    except Exception as e:  # the parser's, and others for values that do not match their tags
        raise ConfigError(f"config {path}{named_by} is not YAML: {_one_line(e)}") from e
    if not isinstance(settings, dict):
        raise ConfigError(f"config {path}{named_by} is not a mapping of settings")
    bases = settings.pop(_BASE, None) or []
    if isinstance(bases, str):
        bases = [bases]
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}: base must be a path or a list of paths, not {bases!r}")
    merged: dict[str, Any] = {}
    for base in bases:
        merged = merge(merged, _load(path.parent / base, (*above, path)))
    return merge(merged, settings)


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys, of which PyYAML silently keeps the last."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"duplicate key '{key.value}'", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return node


_MOST_VALUES = 100_000
"""Of a config whose aliases are written out; a few lines can hold billions."""


def load_yaml(text: str) -> Any:
    """Return the content of a YAML text as `yaml.safe_load` does.

    Raises:
        Exception: of any type; it is not YAML, gives a key twice, has an alias within itself, or
            is too large with its aliases written out.
    """
    content = yaml.load(text, _Loader)
    if _count_values(content, {}) > _MOST_VALUES:
        raise ValueError(
            f"its aliases stand for more than {_MOST_VALUES} values: write less with them"
        )
    return content


def _count_values(value: Any, counts: dict[int, int]) -> int:
    if isinstance(value, str):
        value.encode()  # raises for half a surrogate pair, which no file can hold
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in counts:
        counts[id(value)] = 0
        items = value.values() if isinstance(value, dict) else value
        counts[id(value)] = 1 + sum(_count_values(item, counts) for item in items)
    if counts[id(value)] == 0:
        raise ValueError("an alias stands for what contains it")
    return counts[id(value)]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return ``below`` overridden by ``above`` (see the module); neither is changed."""
    outdated = {f"{kind}_conf" for kind in above if _is_another_class(kind, below, above)}
    merged = {key: copy.deepcopy(value) for key, value in below.items() if key not in outdated}
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def _is_another_class(kind: str, below: dict[str, Any], above: dict[str, Any]) -> bool:
    if kind not in below:  # the base has the default class; a class path is another
        return isinstance(above[kind], str) and ":" in above[kind]
    return below[kind] != above[kind]


def flatten(settings: Any, name: str = "") -> dict[str, Any]:
    """Return dotted key → value of nested settings, with tuples as lists, as in a file."""
    if not isinstance(settings, Mapping):
        return {name: json.loads(json.dumps(settings, default=str))}
    flat = {}
    for key, value in settings.items():
        flat |= flatten(value, f"{name}.{key}" if name else str(key))
    return flat


def parse_assignment(assignment: str) -> dict[str, Any]:
    """Turn ``a.b=VALUE``, with VALUE in YAML, into ``{"a": {"b": VALUE}}``.

    Raises:
        ConfigError: the key or ``=`` is missing, or the value is not YAML.
    """
    keys, equals, value = assignment.partition("=")
    if not equals or not all(keys.split(".")):
        raise ConfigError(f"'{assignment}' is not of the form KEY=VALUE or KEY.KEY=VALUE")
    try:
        settings = load_yaml(value)
    except Exception as e:  # as for a config
        raise ConfigError(f"'{assignment}': the value is not YAML: {_one_line(e)}") from e
    for key in reversed(keys.split(".")):
        settings = {key: settings}
    return settings


def modalities_of(config: Path, arguments: Sequence[str] = ()) -> list[str]:
    """Return the modalities for which a config, overridden by arguments, sets a frontend.

    Args:
        config: training config, or an experiment's ``config.yaml``.
        arguments: options of ``avsr_train``.

    Raises:
        ConfigError: the config cannot be read, or sets no frontend.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for modality in MODALITIES:
        # A frontend that the config does not mention is the task's default class.
        parser.add_argument(f"--{modality}_frontend", default="default")
    parser.set_defaults(**load_config(config))
    args = vars(parser.parse_known_args(arguments)[0])
    found = [m for m in MODALITIES if str(args[f"{m}_frontend"]).lower() not in NULL]
    if not found:
        raise ConfigError(f"{config} sets neither audio_frontend nor video_frontend")
    return found


def named_models(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the base model (``model:``) of each part that a config uses.

    Parts are ``audio_frontend``, ``video_frontend`` and ``decoder``.
    """
    models = {}
    for part in (*(f"{modality}_frontend" for modality in MODALITIES), "decoder"):
        model = (settings.get(f"{part}_conf") or {}).get("model")
        if model and settings.get(part, "default") is not None:
            models[part] = model
    return models
