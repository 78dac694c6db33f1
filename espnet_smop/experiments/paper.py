"""A paper's experiments and the tables that they fill, from one file of settings.

The file (``conf/paper.yaml`` of the LRS3 recipe) has two parts. ``settings`` are named pieces of
training config. ``results`` are tables; each cell takes the task, the settings and the noise level
of its row and its column together::

    settings:
      dci: {projector: mlp, projector_conf: {fusion: {audio: dci, video: dci}}}
      llama3.2_1b: {decoder_conf: {model: meta-llama/Llama-3.2-1B}}
    results:
      table1:
        title: "Table 1"
        task: avsr
        rows:
          DCI: {settings: [dci], paper: [3.46]}
        columns:
          Llama 3.2-1B: {settings: [llama3.2_1b]}

Cells with the same task and settings, in any table, are one experiment, which is trained once.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from espnet_smop.config import load_config, merge
from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.results.decodes import CLEAN

TASKS = ("asr", "vsr", "avsr")
SHOWS = ("wer", "experts")


class PaperError(ValueError):
    """The file of experiments is malformed; the message says where."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A system to be trained.

    Attributes:
        name: task and settings, joined by underscores.
        task: ``asr``, ``vsr`` or ``avsr``.
        settings: names of the pieces that override the task's config.
    """

    name: str
    task: str
    settings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table: an experiment at a noise level, and the paper's number.

    Attributes:
        experiment: the system.
        snr: signal-to-noise ratio in dB as a decode directory spells it, or ``clean``.
        paper: word error rate in %; None if the paper has no number.
    """

    experiment: Experiment
    snr: str
    paper: float | None


@dataclasses.dataclass(frozen=True)
class Result:
    """A table.

    Attributes:
        name: such as ``table1``.
        title: printed above it.
        shows: ``wer``, or ``experts``: the share of tokens that each expert gets.
        columns: their labels.
        rows: label → cells.
    """

    name: str
    title: str
    shows: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[Cell, ...]]

    def cells(self) -> list[Cell]:
        """Return all cells, row by row."""
        return [cell for row in self.rows.values() for cell in row]


@dataclasses.dataclass(frozen=True)
class Paper:
    """Content of the file.

    Attributes:
        path: the file.
        settings: name → piece of training config.
        results: name → table.
    """

    path: Path
    settings: Mapping[str, dict[str, Any]]
    results: Mapping[str, Result]

    def overrides(self, experiment: Experiment) -> dict[str, Any]:
        """Return the settings that override the task's config."""
        merged: dict[str, Any] = {}
        for name in experiment.settings:
            merged = merge(merged, self.settings[name])
        return merged


def experiments(results: Iterable[Result]) -> dict[Experiment, list[str]]:
    """Return the experiments of some tables, each with the noise levels to decode, in order."""
    found: dict[Experiment, list[str]] = {}
    for result in results:
        for cell in result.cells():
            snrs = found.setdefault(cell.experiment, [])
            if result.shows == "wer" and cell.snr not in snrs:
                snrs.append(cell.snr)
    return found


def read(path: Path) -> Paper:
    """Read a file of experiments.

    Raises:
        PaperError: it is malformed; says in which table, row or column.
        OSError: it cannot be read.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings, results = content["settings"], content["results"]
    except (yaml.YAMLError, TypeError, KeyError) as e:
        raise PaperError(f"{path}: not YAML with settings and results ({e})") from None
    order = list(settings)
    return Paper(
        path,
        settings,
        {name: _result(f"{path}: {name}", name, given, order) for name, given in results.items()},
    )


def _result(where: str, name: str, given: dict, order: list[str]) -> Result:
    _known(where, given, ("title", "task", "settings", "shows", "rows", "columns"))
    if given.get("shows", "wer") not in SHOWS:
        raise PaperError(f"{where}: shows is {given['shows']!r}, expected wer or experts")
    columns = given.get("columns") or {}
    rows = {}
    for label, row in given.get("rows", {}).items():
        at = f"{where}: row {label}"
        _known(at, row, ("task", "settings", "snr", "paper"))
        numbers = row.get("paper", [None] * len(columns))
        if len(numbers) != len(columns):
            raise PaperError(f"{at}: {len(numbers)} numbers for {len(columns)} columns")
        rows[label] = tuple(
            _cell(f"{at}, column {column_label}", (given, row, column), number, order)
            for (column_label, column), number in zip(columns.items(), numbers, strict=True)
        )
    if not columns or not rows or "title" not in given:
        raise PaperError(f"{where}: has no title, no rows or no columns")
    labels = tuple(str(column) for column in columns)
    return Result(name, given["title"], given.get("shows", "wer"), labels, rows)


def _cell(where: str, parts: tuple[dict, ...], number: float | None, order: list[str]) -> Cell:
    _known(where, parts[-1], ("task", "settings", "snr"))
    task, snr, settings = None, CLEAN, []
    for part in parts:
        task = part.get("task", task)
        snr = part.get("snr", snr)
        settings += part.get("settings", [])
    if task not in TASKS:
        raise PaperError(f"{where}: task is {task!r}, expected one of {', '.join(TASKS)}")
    unknown = [name for name in settings if name not in order]
    if unknown:
        raise PaperError(f"{where}: {unknown[0]} is not among the settings")
    # The same settings are the same experiment, however a table names them.
    names = tuple(sorted(set(settings), key=order.index))
    snr = snr if snr == CLEAN else f"{snr:g}"
    return Cell(Experiment("_".join([task, *names]), task, names), snr, number)


def _known(where: str, given: Any, keys: tuple[str, ...]) -> None:
    if not isinstance(given, dict):
        raise PaperError(f"{where}: is not a mapping")
    for key in given:
        if key not in keys:
            raise PaperError(f"{where}: unknown key {key}, expected {', '.join(keys)}")


def write_config(
    paper: Paper,
    experiment: Experiment,
    machine: str,
    directory: Path,
    steps_per_epoch: int | None = None,
) -> Path:
    """Write an experiment's training config: its bases and the settings that override them.

    Args:
        paper: the file of experiments.
        experiment: one of its experiments.
        machine: name of a file in ``machine/`` beside the paper's file, with batch settings.
        directory: receives the config as ``NAME.yaml``.
        steps_per_epoch: optimizer steps of an epoch, for a training set of another size than the
            configs are written for. The schedule, its warm-up included, is scaled accordingly.

    Raises:
        PaperError: there is no such machine.
    """
    conf = paper.path.parent
    bases = [conf / f"train_{experiment.task}.yaml", conf / "machine" / f"{machine}.yaml"]
    if not bases[1].is_file():
        known = ", ".join(sorted(path.stem for path in bases[1].parent.glob("*.yaml")))
        raise PaperError(f"{bases[1]}: no such file; --machine is one of {known}")
    directory.mkdir(parents=True, exist_ok=True)
    settings = {
        "base": [os.path.relpath(base, directory) for base in bases],
        **paper.overrides(experiment),
    }
    if steps_per_epoch is not None:
        settings = merge(settings, _schedule(bases, settings, steps_per_epoch))
    path = directory / f"{experiment.name}.yaml"
    with atomic_write(path) as file:
        file.write(f"# {experiment.name}: {', '.join(experiment.settings)}, of {paper.path}\n")
        yaml.safe_dump(settings, file, sort_keys=False, allow_unicode=True)
    return path


def _schedule(bases: list[Path], settings: dict[str, Any], steps_per_epoch: int) -> dict[str, Any]:
    """Return the settings for epochs of ``steps_per_epoch`` optimizer steps."""
    full: dict[str, Any] = {}
    for layer in (*map(load_config, bases), settings):
        full = merge(full, layer)
    before, steps = full["scheduler_conf"], full["max_epoch"] * steps_per_epoch
    warmup = before["warmup_steps"] * steps / before["first_cycle_steps"]
    return {
        "num_iters_per_epoch": steps_per_epoch * full["accum_grad"],
        "scheduler_conf": {"first_cycle_steps": steps, "warmup_steps": max(1, round(warmup))},
    }
