"""Results of experiments, beside the paper's numbers."""

import logging
from collections.abc import Iterable
from pathlib import Path

from espnet_smop.experiments.paper import Cell, Decoding, Experiment, Result
from espnet_smop.results.decodes import CLEAN, Score, find_decodes
from espnet_smop.text_table import text_table

UNKNOWN = "–"
_ROUTER = "router_"
_TEST_SET = "test"  # as the LRS3 recipe's run.sh calls it
_CHOICES = {"first": "1st", "second": "2nd"}


def directory(expdir: Path, experiment: Experiment) -> Path:
    """Return the directory of an experiment."""
    return expdir / f"avsr_{experiment.name}"


def is_trained(expdir: Path, experiment: Experiment, model: str) -> bool:
    """Whether the training of an experiment is finished."""
    return (directory(expdir, experiment) / model).is_file()


def scored(
    expdir: Path, experiment: Experiment, decoding: Decoding, tag: str, noise: str
) -> Path | None:
    """Return the scored decode directory of the test set; None if there is none."""
    for decode in find_decodes(directory(expdir, experiment)):
        if (
            decode.tag == decoding.tag(tag)
            and decode.condition.test_set == _TEST_SET
            and decode.condition.noise in ("", noise)
            and decode.condition.snr == decoding.snr
        ):
            return decode.path
    return None


def missing(
    expdir: Path, experiment: Experiment, decodings: Iterable[Decoding], tag: str, noise: str
) -> list[Decoding]:
    """Return the decodings of an experiment that are not scored yet."""
    return [d for d in decodings if scored(expdir, experiment, d, tag, noise) is None]


def table(result: Result, expdir: Path, tag: str, noise: str, *, unit: str) -> str:
    """Return a table as text: our results with 95 % bootstrap intervals, then the paper's.

    Args:
        result: the table.
        expdir: directory of the experiments.
        tag: name of their decodings.
        noise: name of their noise.
        unit: what the bootstrap draws, ``utterance`` or ``speaker``.

    Raises:
        ScoringError: a decode directory's files do not belong together.
    """
    if result.shows == "experts":
        return _experts(result, expdir)
    noisy = any(cell.decoding.snr != CLEAN for cell in result.cells())
    at_noise = f"; noise: {noise}" if noisy else ""
    title = (
        f"{result.title}. WER in % on the test set, ours [95 % bootstrap interval over {unit}s]"
        f"{at_noise}"
    )
    header = [""]
    for label in result.columns:
        header += [label, "paper"]
    rows = []
    for label, cells in result.rows.items():
        row = [label]
        for cell in cells:
            row += [_rate(cell, expdir, tag, noise, unit), _number(cell.paper)]
        rows.append(row)
    return f"{title}\n{text_table(header, rows)}"


def _rate(cell: Cell, expdir: Path, tag: str, noise: str, unit: str) -> str:
    path = scored(expdir, cell.experiment, cell.decoding, tag, noise)
    return UNKNOWN if path is None else str(Score.read(path, unit=unit))


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:g}"


def _experts(result: Result, expdir: Path) -> str:
    """Return the shares of tokens by expert, as first and as second choice."""
    title = (
        f"{result.title}. Share of the validation set's tokens in % that each expert gets as first "
        "and as second choice, after the last epoch; the paper shows its shares in a figure only"
    )
    rows = []
    for label, (cell, *_) in result.rows.items():
        shares = expert_shares(directory(expdir, cell.experiment))
        if not shares:
            rows.append([label, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN])
        for (router, modality, choice), values in shares.items():
            listed = "  ".join(f"{100 * value:5.1f}" for value in values)
            rows.append([label, router, modality, _CHOICES[choice], listed])
    return f"{title}\n{text_table(['', 'router', 'tokens', 'choice', 'experts'], rows)}"


def expert_shares(experiment: Path) -> dict[tuple[str, str, str], list[float]]:
    """Read each expert's share of the validation tokens in the last epoch.

    Args:
        experiment: its directory; ``checkpoint.pth`` holds what the trainer reported.

    Returns:
        (router, modality, ``first`` or ``second``) → shares, expert by expert; empty if nothing is
        trained, or without routers.
    """
    shares: dict[tuple[str, str, str], dict[int, float]] = {}
    for name, value in _last_validation(experiment).items():
        if name.startswith(_ROUTER):
            # router_<router>/<modality>_<choice>_<expert>
            router, _, rest = name.removeprefix(_ROUTER).partition("/")
            modality, choice, expert = rest.rsplit("_", 2)
            shares.setdefault((router, modality, choice), {})[int(expert)] = value
    return {key: [row[i] for i in sorted(row)] for key, row in sorted(shares.items())}


def _last_validation(experiment: Path) -> dict[str, float]:
    """Return the validation statistics of the last epoch in ``checkpoint.pth``.

    Empty without the file; a file that cannot be read causes a warning.
    """
    path = experiment / "checkpoint.pth"
    if not path.is_file():
        return {}
    # Imports torch, which takes seconds.
    from espnet2.torch_utils.safe_torch_load import safe_torch_load

    try:
        epochs = safe_torch_load(path, map_location="cpu")["reporter"]["stats"]
        return epochs[max(epochs)]["valid"]
    except (RuntimeError, ValueError, KeyError, TypeError, EOFError) as e:
        logging.warning("%s: no training statistics could be read (%s)", path, type(e).__name__)
        return {}
