"""A paper's experiments and the tables that they fill, from one file of settings.

The file (``conf/paper.yaml`` of the LRS3 recipe) has two parts. ``settings`` are named pieces of
training config. ``results`` are tables; each cell takes the task, the settings and the noise level
of its row and its column together. ``by_column`` of a row adds settings in each column::

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

The config is ``train_TASK.yaml``, or ``train_NAME.yaml`` with ``config: NAME``. A column of a
model of several rates has ``rates`` to decode at, ``{audio: 4, video: 2}``. Cells with the same
config and settings, in any table, are one experiment, which is trained once.

A file may name another as its ``base``, as configs do, to share its settings. ``machines`` is the
directory of its batch settings, ``machine`` by default.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from espnet_smop.config import ConfigError, load_config, merge
from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.results.decodes import CLEAN
from espnet_smop.views import TASKS, View

SHOWS = ("wer", "experts")


class PaperError(ValueError):
    """The file of experiments is malformed; the message says where."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A system to be trained.

    Attributes:
        name: config and settings, joined by underscores.
        config: the config is ``train_CONFIG.yaml``; a task, unless the file says otherwise.
        settings: names of the pieces that override the config.
    """

    name: str
    config: str
    settings: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How an experiment is decoded.

    Attributes:
        view: task and rates; without rates the model has this task alone.
        snr: signal-to-noise ratio in dB as a decode directory spells it, or ``clean``.
    """

    view: View
    snr: str

    @property
    def option(self) -> str:
        """The view as ``run.sh --views`` takes it, such as ``avsr:4,2``; empty without rates."""
        rates = ",".join(str(rate) for rate in self.view.rates.values())
        return f"{self.view.task}:{rates}" if rates else ""

    def tag(self, tag: str) -> str:
        """Return the name of the decode directory, as the driver derives it from its tag."""
        return f"{tag}_{self.view.tag}" if self.view.rates else tag


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table: an experiment, how it is decoded, and the paper's number.

    Attributes:
        experiment: the system.
        decoding: its task, rates and noise level.
        paper: word error rate in %; None if the paper has no number.
    """

    experiment: Experiment
    decoding: Decoding
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
        machines: directory of the batch settings for each machine.
    """

    path: Path
    settings: Mapping[str, dict[str, Any]]
    results: Mapping[str, Result]
    machines: Path

    def overrides(self, experiment: Experiment) -> dict[str, Any]:
        """Return the settings that override the experiment's config."""
        merged: dict[str, Any] = {}
        for name in experiment.settings:
            merged = merge(merged, self.settings[name])
        return merged


def experiments(results: Iterable[Result]) -> dict[Experiment, list[Decoding]]:
    """Return the experiments of some tables, each with its decodings, in order."""
    found: dict[Experiment, list[Decoding]] = {}
    for result in results:
        for cell in result.cells():
            decodings = found.setdefault(cell.experiment, [])
            if result.shows == "wer" and cell.decoding not in decodings:
                decodings.append(cell.decoding)
    return found


def calls(decodings: Iterable[Decoding]) -> list[tuple[list[str], list[str]]]:
    """Return the noise levels and views of each call of the driver for some decodings.

    A call decodes each of its views at each of its noise levels.
    """
    by_view: dict[str, list[str]] = {}
    for decoding in decodings:
        by_view.setdefault(decoding.option, []).append(decoding.snr)
    by_snrs: dict[tuple[str, ...], list[str]] = {}
    for view, snrs in by_view.items():
        by_snrs.setdefault(tuple(snrs), []).append(view)
    return [([*snrs], [view for view in views if view]) for snrs, views in by_snrs.items()]


def read(path: Path) -> Paper:
    """Read a file of experiments.

    Raises:
        PaperError: it cannot be read, or is malformed; says in which table, row or column.
    """
    try:
        content = load_config(path)
        settings, results = content["settings"], content["results"]
    except (ConfigError, TypeError, KeyError) as e:
        raise PaperError(f"{path}: not YAML with settings and results ({e})") from None
    order = list(settings)
    return Paper(
        path,
        settings,
        {name: _result(f"{path}: {name}", name, given, order) for name, given in results.items()},
        path.parent / content.get("machines", "machine"),
    )


_CELL_KEYS = ("task", "config", "settings", "snr")


def _result(where: str, name: str, given: dict, order: list[str]) -> Result:
    _known(where, given, ("title", "shows", "rows", "columns", *_CELL_KEYS))
    if given.get("shows", "wer") not in SHOWS:
        raise PaperError(f"{where}: shows is {given['shows']!r}, expected wer or experts")
    columns = given.get("columns") or {}
    rows = {}
    for label, row in given.get("rows", {}).items():
        at = f"{where}: row {label}"
        _known(at, row, ("by_column", "paper", *_CELL_KEYS))
        numbers = row.get("paper", [None] * len(columns))
        own = row.get("by_column", [[]] * len(columns))
        for kind, values in (("numbers", numbers), ("lists of settings", own)):
            if len(values) != len(columns):
                raise PaperError(f"{at}: {len(values)} {kind} for {len(columns)} columns")
        rows[label] = tuple(
            _cell(
                f"{at}, column {column_label}",
                (given, row, {"settings": settings}, column),
                number,
                order,
            )
            for (column_label, column), number, settings in zip(
                columns.items(), numbers, own, strict=True
            )
        )
    if not columns or not rows or "title" not in given:
        raise PaperError(f"{where}: has no title, no rows or no columns")
    labels = tuple(str(column) for column in columns)
    return Result(name, given["title"], given.get("shows", "wer"), labels, rows)


def _cell(where: str, parts: tuple[dict, ...], number: float | None, order: list[str]) -> Cell:
    *_, column = parts
    _known(where, column, ("rates", *_CELL_KEYS))
    task, config, snr, settings = None, None, CLEAN, []
    for part in parts:
        task = part.get("task", task)
        config = part.get("config", config)
        snr = part.get("snr", snr)
        settings += part.get("settings", [])
    if task not in TASKS:
        raise PaperError(f"{where}: task is {task!r}, expected one of {', '.join(TASKS)}")
    rates = column.get("rates", {})
    if rates and tuple(rates) != TASKS[task]:
        raise PaperError(f"{where}: rates are of {', '.join(rates)}, but the task is {task}")
    unknown = [name for name in settings if name not in order]
    if unknown:
        raise PaperError(f"{where}: {unknown[0]} is not among the settings")
    # The same settings are the same experiment, however a table names them.
    names = tuple(sorted(set(settings), key=order.index))
    config = config or task
    if task == "vsr":  # noise does not change the lips
        snr = CLEAN
    decoding = Decoding(View(task, rates), snr if snr == CLEAN else f"{snr:g}")
    return Cell(Experiment("_".join([config, *names]), config, names), decoding, number)


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
        machine: name of a file in ``paper.machines``, with batch settings.
        directory: receives the config as ``NAME.yaml``.
        steps_per_epoch: optimizer steps per epoch, for a training set of another size than the
            configs assume. The schedule, its warm-up included, is scaled accordingly.

    Raises:
        PaperError: there is no such machine.
    """
    bases = [
        paper.path.parent / f"train_{experiment.config}.yaml",
        paper.machines / f"{machine}.yaml",
    ]
    if not bases[1].is_file():
        known = ", ".join(sorted(path.stem for path in paper.machines.glob("*.yaml")))
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
        "scheduler_conf": {
            "first_cycle_steps": steps,
            "warmup_steps": round(warmup) or int(warmup > 0),
        },
    }
