"""Keeps a module of ESPnet from printing that flash_attn, which is not used, is missing."""

import contextlib
import importlib.abc
import importlib.machinery
import io
import sys
from collections.abc import Sequence
from types import ModuleType

_NOISY = "espnet2.legacy.nets.pytorch_backend.transformer.attention"


class _QuietImport(importlib.abc.MetaPathFinder):
    """Finds the noisy module."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Have the noisy module print nothing; leave all others to the usual finders."""
        if fullname != _NOISY:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def quietly(module: ModuleType) -> None:
                with contextlib.redirect_stderr(io.StringIO()):
                    execute(module)

            spec.loader.exec_module = quietly
        return spec


sys.meta_path.insert(0, _QuietImport())
