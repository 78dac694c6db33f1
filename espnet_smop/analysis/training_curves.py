"""What the trainer reported, epoch by epoch."""

from pathlib import Path

from espnet2.torch_utils.safe_torch_load import safe_torch_load

Curves = dict[tuple[str, str], dict[int, float]]
"""(``train`` or ``valid``, statistic) → epoch → value."""


def read_curves(experiment: Path) -> Curves:
    """Return what the experiment's ``checkpoint.pth`` keeps of the reporter; nothing without it."""
    path = experiment / "checkpoint.pth"
    if not path.is_file():
        return {}
    state = safe_torch_load(path, map_location="cpu").get("reporter", {})
    curves: Curves = {}
    for epoch, parts in sorted(state.get("stats", {}).items()):
        for part in ("train", "valid"):
            for name, value in parts.get(part, {}).items():
                if isinstance(value, int | float):
                    curves.setdefault((part, name), {})[int(epoch)] = float(value)
    return curves
