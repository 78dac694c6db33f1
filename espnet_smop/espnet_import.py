"""How ESPnet is imported: without run-time type checks, and without a note on flash_attn.

ESPnet decorates its functions with typeguard's `typechecked`, which rewrites each of them when its
module is imported: a third of the seconds that a command takes to start. Settings are checked here,
before they reach ESPnet. Functions of other packages are checked as before, and so are ESPnet's
where typeguard has been imported earlier, as it is by its plugin for pytest.
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
    """Execute a module of ESPnet, which prints that flash_attn, which is not used, is missing."""
    with contextlib.redirect_stderr(io.StringIO()):
        execute(module)


def _for_others(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    """Execute typeguard, and have it leave ESPnet's functions as they are."""
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
    "typeguard": _for_others,
}


class _Finder:
    """Finds the modules that are executed in a way of their own; leaves others to other finders."""

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
