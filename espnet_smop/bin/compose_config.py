#!/usr/bin/env python3
"""Print a config with its bases merged in, and with values changed, as one complete file.

Example::

    python -m espnet_smop.bin.compose_config conf/train_avsr_dci.yaml
    python -m espnet_smop.bin.compose_config conf/train_avsr_dci.yaml max_epoch=2 \
        optim_conf.lr=5.0e-4 > conf/train_avsr_dci_short.yaml
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from espnet_smop.config import load_config, merge


def nested(assignment: str) -> dict[str, Any]:
    """Turn ``a.b=VALUE`` (VALUE is YAML) into ``{"a": {"b": VALUE}}``.

    Raises:
        ValueError: there is no key or no ``=``.
    """
    keys, equals, value = assignment.partition("=")
    if not equals or not all(keys.split(".")):
        raise ValueError(f"'{assignment}' is not of the form KEY=VALUE or KEY.KEY=VALUE")
    settings = yaml.safe_load(value)
    for key in reversed(keys.split(".")):
        settings = {key: settings}
    return settings


def main(cmd: Sequence[str] | None = None) -> None:
    """Print the config."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="Config, which may name a base")
    parser.add_argument("assignments", nargs="*", metavar="KEY=VALUE", help="What to change")
    args = parser.parse_args(cmd)
    try:
        settings = load_config(args.config)
        for assignment in args.assignments:
            settings = merge(settings, nested(assignment))
    except (OSError, ValueError, yaml.YAMLError) as e:
        sys.exit(f"compose_config: {e}")
    yaml.safe_dump(settings, sys.stdout, sort_keys=False, allow_unicode=True, width=10_000)


if __name__ == "__main__":
    main()
