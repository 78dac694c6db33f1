"""What experiments gave, beside what the paper has."""

from collections.abc import Iterable
from pathlib import Path

from espnet_smop.analysis.bootstrap import interval
from espnet_smop.analysis.training_curves import read_curves
from espnet_smop.experiments.paper import Cell, Experiment, Result
from espnet_smop.scoring.decodes import CLEAN, find_decodes, read_errors

UNKNOWN = "–"
_ROUTER = "router_"
_TEST_SET = "test"  # as the LRS3 recipe's run.sh calls it
_CHOICES = {"first": "1st", "second": "2nd"}


def directory(expdir: Path, experiment: Experiment) -> Path:
    """Return where an experiment lies."""
    return expdir / f"avsr_{experiment.name}"


def is_trained(expdir: Path, experiment: Experiment, model: str) -> bool:
    """Whether the training of an experiment is finished."""
    return (directory(expdir, experiment) / model).is_file()


def scored(expdir: Path, experiment: Experiment, tag: str, noise: str) -> dict[str, Path]:
    """Return its scored decode directories of the test set by noise level (``clean``, ``0``, …)."""
    return {
        decode.snr: decode.path
        for decode in find_decodes(directory(expdir, experiment))
        if decode.path.parent.name == tag
        and decode.test_set == _TEST_SET
        and decode.noise in ("", noise)
    }


def missing(
    expdir: Path, experiment: Experiment, snrs: Iterable[str], tag: str, noise: str
) -> list[str]:
    """Return those noise levels at which an experiment is not scored yet."""
    done = scored(expdir, experiment, tag, noise)
    levels = dict.fromkeys(_level(experiment, snr) for snr in snrs)
    return [snr for snr in levels if snr not in done]


def _level(experiment: Experiment, snr: str) -> str:
    # Lips are the same whatever the noise.
    return CLEAN if experiment.task == "vsr" else snr


def table(result: Result, expdir: Path, tag: str, noise: str) -> str:
    """Return a table as text: ours with a 95 % bootstrap interval, then the paper's.

    Raises:
        ScoringError: a decode directory's files do not belong together.
    """
    if result.shows == "experts":
        return _experts(result, expdir)
    noisy = f"; noise: {noise}" if any(cell.snr != CLEAN for cell in result.cells()) else ""
    title = f"{result.title}. WER in % on the test set, ours [95 % bootstrap interval]{noisy}"
    header = [""]
    for label in result.columns:
        header += [label, "paper"]
    rows = [header]
    for label, cells in result.rows.items():
        row = [label]
        for cell in cells:
            row += [_rate(cell, expdir, tag, noise), _number(cell.paper)]
        rows.append(row)
    return "\n".join([title, *_align(rows)])


def _rate(cell: Cell, expdir: Path, tag: str, noise: str) -> str:
    path = scored(expdir, cell.experiment, tag, noise).get(_level(cell.experiment, cell.snr))
    if path is None:
        return UNKNOWN
    errors = read_errors(path)
    low, high = interval(errors.errors, errors.words)
    return f"{100 * errors.rate:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:g}"


def _align(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(f"{x:<{w}}" for x, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return [lines[0], "  ".join("-" * w for w in widths), *lines[1:]]


def _experts(result: Result, expdir: Path) -> str:
    """Return the shares of tokens by expert, as first and as second choice."""
    lines = [
        f"{result.title}. Share of the validation set's tokens in % that each expert gets as first "
        "and as second choice, after the last epoch; the paper's figure is only drawn"
    ]
    rows = [["", "router", "tokens", "choice", "experts"]]
    for label, (cell, *_) in result.rows.items():
        shares = expert_shares(directory(expdir, cell.experiment))
        if not shares:
            rows.append([label, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN])
        for (router, modality, choice), values in shares.items():
            listed = "  ".join(f"{100 * value:5.1f}" for value in values)
            rows.append([label, router, modality, _CHOICES[choice], listed])
    return "\n".join([*lines, *_align(rows)])


def expert_shares(experiment: Path) -> dict[tuple[str, str, str], list[float]]:
    """Read each expert's share of the validation tokens in the last epoch.

    Args:
        experiment: its directory; ``checkpoint.pth`` holds what the trainer reported.

    Returns:
        (router, modality, ``first`` or ``second``) → shares, expert by expert; empty where
        nothing is trained, or where there are no routers.
    """
    shares: dict[tuple[str, str, str], dict[int, float]] = {}
    for (part, name), by_epoch in read_curves(experiment).items():
        if part == "valid" and name.startswith(_ROUTER):
            # router_<router>/<modality>_<choice>_<expert>
            router, _, rest = name.removeprefix(_ROUTER).partition("/")
            modality, choice, expert = rest.rsplit("_", 2)
            last = by_epoch[max(by_epoch)]
            shares.setdefault((router, modality, choice), {})[int(expert)] = last
    return {key: [row[i] for i in sorted(row)] for key, row in sorted(shares.items())}
