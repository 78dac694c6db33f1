"""What the trainer reported, epoch by epoch."""

import logging
from pathlib import Path

from espnet2.torch_utils.safe_torch_load import safe_torch_load

Curves = dict[tuple[str, str], dict[int, float]]
"""(``train`` or ``valid``, statistic) → epoch → value."""


def read_curves(experiment: Path) -> Curves:
    """Return what the experiment's ``checkpoint.pth`` keeps of the reporter.

    Nothing where there is none; of one that cannot be read a warning says so.
    """
    path = experiment / "checkpoint.pth"
    if not path.is_file():
        return {}
    try:
        reported = safe_torch_load(path, map_location="cpu")["reporter"]["stats"]
    except (RuntimeError, KeyError, TypeError, EOFError) as e:
        logging.warning("%s: no report of a training could be read (%s)", path, type(e).__name__)
        return {}
    curves: Curves = {}
    for epoch, parts in sorted(reported.items()):
        for part in ("train", "valid"):
            for name, value in parts.get(part, {}).items():
                if isinstance(value, int | float):
                    curves.setdefault((part, name), {})[int(epoch)] = float(value)
    return curves
