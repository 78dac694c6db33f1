"""ESPnet's argument parser, with configs that may name a base."""

import argparse
import difflib
from collections.abc import Sequence
from typing import Any

from espnet2.utils import config_argparse

from espnet_smop.config import ConfigError, load_config


class BasedConfigParser(config_argparse.ArgumentParser):
    """Reads ``--config`` by :func:`~espnet_smop.config.load_config`; all else is ESPnet's.

    Args:
        parser: has the arguments.
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
        """Parse arguments over the settings of ``--config``, these over the defaults."""
        given, _ = argparse.ArgumentParser.parse_known_args(self, args, namespace)
        if given.config is not None:
            try:
                settings = load_config(given.config)
            except ConfigError as e:
                self.error(str(e))
            known = {action.dest for action in self._actions}
            for key in sorted(settings.keys() - known, key=str):
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f". Did you mean '{near[0]}'?" if near else ""
                self.error(f"unrecognized arguments: {key} (from {given.config}){hint}")
            self.set_defaults(**settings)
        return argparse.ArgumentParser.parse_known_args(self, args, namespace)
