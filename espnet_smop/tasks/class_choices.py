"""Classes by name or by class path, so that a class of one's own needs no edit of the package.

Example::

    projector: smop                          # registered, in any case
    projector: my_package.my_module:MyProjector
    projector: local.my_projector:MyProjector   # of the recipe's local/, from its directory
"""

import argparse
import difflib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path

from espnet2.train.class_choices import ClassChoices

_NONE = ("none", "null", "nil")


class OpenClassChoices(ClassChoices):
    """ESPnet's choices of registered classes, and any other class as ``module:Class``.

    Modules are found as Python finds them (installed packages, ``PYTHONPATH``), then in the working
    directory. A class has to derive from the ``type_check`` of its kind.
    """

    def get_class(self, name: str | None) -> type | None:
        """Return the class of a name or class path; None for null.

        Raises:
            ValueError: there is no such class, or it does not fit; the message says why.
        """
        if name is None or (self.optional and name.lower() in _NONE):
            return None
        if ":" in name:
            try:
                return _import_class(name, self.base_type)
            except ValueError as e:
                raise ValueError(f"{self.name}: {e}") from e
        if name.lower() in self.classes:
            return self.classes[name.lower()]
        raise ValueError(
            f"{self.name}: '{name}' is none of {', '.join(self._names())}"
            + _suggestion(name.lower(), self.classes)
        )

    def parse(self, name: str) -> str | None:
        """Check a name or class path of the command line or a config, and return it."""
        try:
            if self.get_class(name) is None:
                return None
        except ValueError as e:
            raise argparse.ArgumentTypeError(str(e).removeprefix(f"{self.name}: ")) from e
        return name if ":" in name else name.lower()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add ``--<kind>`` and ``--<kind>_conf``."""
        super().add_arguments(parser)
        action = next(a for a in parser._actions if a.dest == self.name)
        action.type, action.choices = self.parse, None
        action.metavar = f"{{{','.join(self._names())}}}"
        action.help = f"The {self.name}: a registered one or a class of your own, module:Class"

    def _names(self) -> list[str]:
        return [*self.classes, *(["null"] if self.optional else []), "module:Class"]


def check_outside(class_path: str, directory: Path) -> None:
    """Refuse a class of a module within a directory, without importing anything.

    Args:
        class_path: ``module:Class``.
        directory: of files that others made, such as an unpacked model.

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
            f"the class {class_path} is in {directory} itself, and code that comes with a model is "
            "not run: read it, then put its module on PYTHONPATH from another directory"
        )


def _import_class(path: str, base: type) -> type:
    module_name, _, class_name = path.partition(":")
    module = _import_module(module_name, path)
    found = getattr(module, class_name, None)
    if found is None:
        fitting = [
            name
            for name, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value)
        ]
        raise ValueError(
            f"module {module_name} has no class '{class_name}'" + _suggestion(class_name, fitting)
        )
    if not inspect.isclass(found) or not issubclass(found, base):
        raise ValueError(f"{path} is no {base.__name__}: derive it from {_path_of(base)}")
    if inspect.isabstract(found):
        raise ValueError(
            f"{path} lacks {', '.join(sorted(found.__abstractmethods__))}, which {_path_of(base)} "
            "asks for"
        )
    return found


def _import_module(name: str, path: str):
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"'{path}' is no class path of the form module:Class")
    _search_working_directory()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as e:
        if e.name is None or not f"{name}.".startswith(f"{e.name}."):
            raise ValueError(f"module {name} cannot be imported: {e}") from e
        parent = sys.modules.get(e.name.rpartition(".")[0])
        near = (m.name for m in pkgutil.iter_modules(getattr(parent, "__path__", None)))
        raise ValueError(
            f"there is no module '{e.name}' in the working directory, on PYTHONPATH or installed"
            + _suggestion(e.name.rpartition(".")[2], near)
        ) from e
    except Exception as e:  # anything may happen in it
        raise ValueError(f"module {name} cannot be imported: {type(e).__name__}: {e}") from e


def _search_working_directory() -> None:
    # Last, so that it hides no installed module. It stays: processes that training starts need it.
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
        importlib.invalidate_caches()


def _path_of(class_: type) -> str:
    return f"{class_.__module__}:{class_.__name__}"


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f". Did you mean '{near[0]}'?" if near else ""
