"""ESPnet's argument parser, with configs that may name a base."""

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from espnet2.utils import config_argparse
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import int_or_none, str2bool, str2triple_str, str_or_none

from espnet_smop.class_path import suggestion
from espnet_smop.config import ConfigError, load_config
from espnet_smop.tasks.class_choices import OpenClassChoices
from espnet_smop.train.data_workers import data_workers


class BasedConfigParser(config_argparse.ArgumentParser):
    """ESPnet's parser, except that :func:`~espnet_smop.config.load_config` reads ``--config``.

    Args:
        parser: the parser of all arguments.
    """

    def __init__(self, parser: argparse.ArgumentParser):
        super().__init__(
            description=parser.description,
            formatter_class=parser.formatter_class,
            parents=[parser],
            add_help=False,
            conflict_handler="resolve",  # both have --config
        )

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse arguments, which override the settings of ``--config``, which override defaults."""
        given, _ = argparse.ArgumentParser.parse_known_args(self, args, namespace)
        if given.config is not None:
            try:
                settings = load_config(given.config)
            except ConfigError as e:
                self.error(str(e))
            actions = {action.dest: action for action in self._actions}
            for key, value in sorted(settings.items(), key=str):
                if key not in actions:
                    self.error(
                        f"unrecognized arguments: {key} (from {given.config})"
                        + suggestion(str(key), actions)
                    )
                expected = _expected(actions[key], value)
                if expected is not None:
                    self.error(f"{key} is {value!r} (from {given.config}), expected {expected}")
            self.set_defaults(**settings)
        return argparse.ArgumentParser.parse_known_args(self, args, namespace)

    def parse_args(
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """Parse arguments; an unknown option is an error that names the closest known one."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            name = unknown[0].partition("=")[0]
            options = [option for action in self._actions for option in action.option_strings]
            self.error(f"unrecognized arguments: {' '.join(unknown)}{suggestion(name, options)}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Exit with a one-line message; ESPnet's usage has more than a hundred lines."""
        self.exit(2, f"{self.prog}: error: {message}\n")


_KINDS = {
    int: "a whole number",
    int_or_none: "a whole number",
    float: "a number",
    data_workers: "a whole number or auto",
}


def _expected(action: argparse.Action, value: Any) -> str | None:
    """Return the expected type of a config's value; None if it is right, or a string to parse."""
    if isinstance(action, NestedDictAction):
        return None if isinstance(value, dict) else "settings of the form 'key: value'"
    if isinstance(action, argparse._AppendAction) or action.nargs is not None:
        return _expected_list(action, value)
    if action.choices is not None and value is not None:
        choices = list(map(str, action.choices))
        text = str(value) if action.type is None else str(action.type(str(value)))
        if text not in choices:
            return f"one of {', '.join(choices)}{suggestion(text, choices)}"
    if isinstance(value, str):
        return None
    choices = getattr(action.type, "__self__", None)
    if isinstance(choices, OpenClassChoices):
        return None if value is None and choices.optional else "the name of a class"
    if action.type in (str, str_or_none) and value is not None:
        return "a string"
    if action.type is str2bool and value not in (True, False):
        return "true or false"
    if action.type in _KINDS:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is None:
            optional = action.default is None or action.type is int_or_none
            return None if optional else _KINDS[action.type]
        if not whole and not (action.type is float and isinstance(value, float)):
            return _KINDS[action.type]
    return None


def _expected_list(action: argparse.Action, value: Any) -> str | None:
    """Return the expected type of an option that takes several values; None if it is right."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if action.type is int and is_number and action.nargs is not None:
        return None  # one alone
    if not isinstance(value, list | tuple):
        return "a list"
    if action.type is int and not all(type(item) is int for item in value):
        return "a list of whole numbers"
    if action.type is str and not all(isinstance(item, str) for item in value):
        return "a list of strings"
    if action.type is str2triple_str and isinstance(action, argparse._AppendAction):
        triples = (isinstance(item, list | tuple) and len(item) == 3 for item in value)
        return None if all(triples) else "a list of [FILE, NAME, TYPE]"
    return None
