"""Imports ESPnet without run-time type checks and without its note on flash_attn.

ESPnet decorates its functions with typeguard's `typechecked`, which rewrites each of them on
import: a third of a command's start-up time. Settings are checked here, before they reach ESPnet.
Functions of other packages are checked as before, and so are ESPnet's if typeguard was imported
earlier, as by its pytest plugin.
"""

import contextlib
import functools
import importlib.machinery
import io
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any


def _quietly(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    """Execute an ESPnet module without its note that flash_attn, which is unused, is missing."""
    with contextlib.redirect_stderr(io.StringIO()):
        execute(module)


def _exempting_espnet(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    """Execute typeguard, and exempt ESPnet's functions from its checks."""
    execute(module)
    check = module.typechecked

    @functools.wraps(check)
    def typechecked(target: Any = None, **options: Any) -> Any:
        if getattr(target, "__module__", "").startswith("espnet2."):
            return target
        return check(target, **options)

    module.typechecked = typechecked


_EXECUTE = {
    "espnet2.legacy.nets.pytorch_backend.transformer.attention": _quietly,
    "typeguard": _exempting_espnet,
}


class _Finder:
    """Finds the modules in ``_EXECUTE``; leaves others to other finders."""

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _EXECUTE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            execute = functools.partial(_EXECUTE[fullname], spec.loader.exec_module)
            spec.loader.exec_module = execute
        return spec


sys.meta_path.insert(0, _Finder)
