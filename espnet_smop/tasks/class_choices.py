"""Selects classes by name or class path, so that your own need no change to the package.

Example::

    projector: smop                          # registered; case is ignored
    projector: my_package.my_module:MyProjector
    projector: local.my_projector:MyProjector   # in the recipe's local/
"""

import argparse
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from espnet2.train.class_choices import ClassChoices

from espnet_smop.class_path import import_class, is_own, suggestion
from espnet_smop.config import NULL
from espnet_smop.tasks.settings import check_none, conf_problems


class OpenClassChoices(ClassChoices):
    """ESPnet's choices of registered classes, and any other class as ``module:Class``.

    Classes must derive from ``type_check``.
    """

    def get_class(self, name: str | None) -> type | None:
        """Return the class of a name or class path; None for null.

        Raises:
            ValueError: there is no such class, or it does not fit; the message says why.
        """
        if self.optional and (name is None or str(name).lower() in NULL):
            return None
        if not isinstance(name, str):
            raise ValueError(f"{self.name} is {name!r}, expected the name of a class")
        if ":" in name:
            try:
                return import_class(name, self.base_type)
            except ValueError as e:
                raise ValueError(f"{self.name}: {e}") from e
        if name.lower() in self.classes:
            return self.classes[name.lower()]
        raise ValueError(
            f"{self.name}: unknown class '{name}': choose {', '.join(self._registered())}, or your "
            "own as module:Class" + suggestion(name.lower(), self.classes)
        )

    def build(self, args: argparse.Namespace, *positional: Any) -> Any:
        """Build the class that the arguments name, with its ``_conf``; None for null.

        Raises:
            ValueError: the class is not found, or its ``_conf`` is wrong; names the key.
        """
        class_ = self.get_class(getattr(args, self.name))
        if class_ is None:
            return None
        return build(self.name, class_, getattr(args, f"{self.name}_conf"), *positional)

    def takes(self, args: argparse.Namespace, option: str) -> bool:
        """Whether the class that the arguments name has this option."""
        class_ = self.get_class(getattr(args, self.name))
        return class_ is not None and option in inspect.signature(class_).parameters

    def parse(self, name: str) -> str | None:
        """Check a name or class path from the command line or a config, and return it."""
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
        action.metavar = f"{{{','.join([*self._registered(), 'module:Class'])}}}"
        action.help = f"The {self.name}: a registered one or a class of your own, module:Class"

    def _registered(self) -> list[str]:
        return [*self.classes, *(["null"] if self.optional else [])]


def build(kind: str, class_: Callable, conf: Mapping[str, Any], *positional: Any) -> Any:
    """Call ``class_(*positional, **conf)``.

    Args:
        kind: its name in the config, for messages.
        class_: what to call.
        conf: ``<kind>_conf``.
        positional: arguments that the task gives.

    Raises:
        ValueError: ``conf`` is not a mapping, or a key is unknown, missing or of a wrong type, or
            the class does not take the positional arguments.
        TypeError: raised within a user's own class.
    """
    check_none(
        conf_problems(f"{kind}_conf", class_, conf, num_given=len(positional), registered=False)
    )
    named = getattr(class_, "func", class_)
    try:
        inspect.signature(class_).bind(*positional, **conf)
    except TypeError as e:
        raise ValueError(f"{kind}: {named.__name__} cannot be called as required: {e}") from e
    try:
        return class_(*positional, **conf)
    except TypeError as e:
        if is_own(f"{named.__module__}:{named.__name__}"):
            raise  # a mistake in a user's own class, which only its traceback locates
        raise ValueError(f"{kind}_conf has a value of a wrong type: {e}") from e
