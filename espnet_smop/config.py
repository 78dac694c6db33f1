"""Configs that say only how they differ from others.

A config may name others as its ``base``, by paths relative to its own directory::

    # conf/train_avsr_dci.yaml
    base: train_base.yaml
    projector: mlp
    projector_conf:
      fusion: {audio: dci, video: dci}

Its settings lie over those of the base: mappings are merged key by key, to any depth; anything else
(numbers, lists, ``null``) replaces what the base has. Where it names another class than its base
does (``projector: mlp`` over ``projector: smop``), the base's ``projector_conf`` counts no more:
its arguments are those of the other class. Of several bases, ``base: [a.yaml, b.yaml]``, the later
lie over the earlier; a base may have a base itself.
"""

import copy
from pathlib import Path
from typing import Any

import yaml

_BASE = "base"


class ConfigError(ValueError):
    """A config, or a base that it names, is missing or is not a mapping of settings."""


def load_config(path: str | Path) -> dict[str, Any]:
    """Return the settings of a config with those of its bases below them.

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
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as e:
        raise ConfigError(f"config {path}{named_by} is not UTF-8: {e.reason}") from None
    except Exception as e:  # the parser's own, and others for values that do not fit their tags
        raise ConfigError(f"config {path}{named_by} is not YAML: {e}") from e
    if not isinstance(settings, dict):
        raise ConfigError(f"config {path}{named_by} is not a mapping of settings")
    bases = settings.pop(_BASE, None) or []
    if isinstance(bases, str):
        bases = [bases]
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{path}: base is a path or a list of paths, not {bases!r}")
    merged: dict[str, Any] = {}
    for base in bases:
        merged = merge(merged, _load(path.parent / base, (*above, path)))
    return merge(merged, settings)


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay the settings ``above`` over those ``below``, as the module says; changes neither."""
    outdated = {f"{kind}_conf" for kind in above if kind in below and below[kind] != above[kind]}
    merged = {key: copy.deepcopy(value) for key, value in below.items() if key not in outdated}
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged
