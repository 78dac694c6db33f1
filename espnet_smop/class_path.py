"""Imports classes by path, ``module:Class``, so that your own need no change to the package.

Modules are looked up as Python does (installed packages, ``PYTHONPATH``), then in the working
directory: a recipe's ``local/my_reader.py`` is the module ``local.my_reader``.
"""

import contextlib
import difflib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

_PACKAGE = __name__.partition(".")[0]


def import_class(path: str, base: type | None = None) -> type:
    """Import a class.

    Args:
        path: ``module:Class``.
        base: class that it must derive from and whose abstract methods it must define; None
            accepts any class.

    Raises:
        ValueError: there is no such module or class, or the class does not qualify; the message
            is one line.
    """
    module_name, _, class_name = path.partition(":")
    module = _import_module(module_name, path)
    found = getattr(module, class_name, None)
    if found is None:
        fitting = [
            name
            for name, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, base or object)
        ]
        raise ValueError(
            f"module {module_name} has no class '{class_name}'"
            + (suggestion(class_name, fitting) or _shadowed(module))
        )
    if not inspect.isclass(found):
        raise ValueError(f"{path} is a {type(found).__name__}, not a class")
    if base is None:
        return found
    if not issubclass(found, base):
        raise ValueError(
            f"{path} is not a subclass of {base.__name__}: derive it from {_path_of(base)}"
        )
    if inspect.isabstract(found):
        raise ValueError(
            f"{path} lacks {', '.join(sorted(found.__abstractmethods__))}, which {_path_of(base)} "
            "requires"
        )
    return found


def is_own(path: str | None) -> bool:
    """Return whether a name is the path of a class outside this package."""
    return path is not None and ":" in path and not path.startswith(f"{_PACKAGE}.")


def check_outside(class_path: str, directory: Path) -> None:
    """Refuse a class whose module is in a directory, without importing it.

    Args:
        class_path: ``module:Class``.
        directory: of third-party files, such as an unpacked model.

    Raises:
        ValueError: the module is found there.
    """
    top, *rest = class_path.partition(":")[0].split(".")
    _search_working_directory()
    spec = importlib.util.find_spec(top) if top else None
    if spec is None:
        return
    places = [Path(p, *rest) for p in spec.submodule_search_locations or ()]
    places += [Path(spec.origin)] if spec.has_location else []
    if any(place.resolve().is_relative_to(directory.resolve()) for place in places):
        raise ValueError(
            f"the class {class_path} is in {directory}, and code that comes with a model is not "
            "run: review it, then copy its module to another directory on PYTHONPATH"
        )


def _import_module(name: str, path: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"'{path}' is not a class path of the form module:Class")
    _search_working_directory()
    try:
        # What it prints must not become part of a command's output.
        with contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except ModuleNotFoundError as e:
        if e.name is None or not f"{name}.".startswith(f"{e.name}."):
            raise ValueError(f"module {name} cannot be imported: {_one_line(e)}") from e
        parent = sys.modules.get(e.name.rpartition(".")[0])
        siblings = (m.name for m in pkgutil.iter_modules(getattr(parent, "__path__", None)))
        raise ValueError(
            f"there is no module '{e.name}' in the working directory, on PYTHONPATH or installed"
            + suggestion(e.name.rpartition(".")[2], siblings)
        ) from e
    except KeyboardInterrupt:
        raise
    except BaseException as e:  # importing may raise anything, even SystemExit
        raise ValueError(
            f"module {name} cannot be imported: {type(e).__name__}: {_one_line(e)}"
        ) from e


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _shadowed(module: ModuleType) -> str:
    """Return a hint if the working directory has a module of the same name as an installed one."""
    own = Path(*module.__name__.split(".")).with_suffix(".py")
    other = getattr(module, "__file__", None) or "Python itself"
    if not own.is_file() or own.absolute() == Path(other):
        return ""
    return f": {own} is hidden by {other}; rename yours"


def _search_working_directory() -> None:
    # Last, so that it shadows no installed module. Kept for the processes that training starts.
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
        importlib.invalidate_caches()


def _path_of(class_: type) -> str:
    return f"{class_.__module__}:{class_.__name__}"


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ``. Did you mean '…'?`` with the closest known name, or "" if none is close."""
    closest = difflib.get_close_matches(name, list(known), n=1)
    return f". Did you mean '{closest[0]}'?" if closest else ""


def unknown_key(where: str, key: Any, known: Collection[str], kind: str = "key") -> str:
    """Return the message about an unknown key: the closest known one, or all of them."""
    hint = suggestion(str(key), known) or f". Known: {', '.join(sorted(known))}"
    return f"{where} has an unknown {kind} '{key}'{hint}"
