"""ESPnet's argument parser, with configs that may name a base."""

import argparse
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
            for key in sorted(settings.keys() - {action.dest for action in self._actions}):
                self.error(f"unrecognized arguments: {key} (from {given.config})")
            self.set_defaults(**settings)
        return argparse.ArgumentParser.parse_known_args(self, args, namespace)
