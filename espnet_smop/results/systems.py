"""Decoded experiments as systems: their scores, and the significance of differences."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from espnet_smop.config import load_config
from espnet_smop.modality import MODALITIES
from espnet_smop.results.costs import DecodingCosts
from espnet_smop.results.decodes import CLEAN, Condition, Decode, Score, find_decodes
from espnet_smop.results.intervals import Comparison
from espnet_smop.results.significance import MatchedPairs, holm, matched_pairs
from espnet_smop.results.transcripts import ScoringError
from espnet_smop.views import View

TASKS = {("audio",): "ASR", ("video",): "VSR", ("audio", "video"): "AVSR"}
FEW_SPEAKERS = 20
"""With fewer speakers, intervals over speakers are too narrow to rely on."""


@dataclass
class System:
    """An experiment, as decoded under one tag.

    Attributes:
        name: unique among the systems compared.
        path: the experiment.
        tag: name of the decoding; empty if nothing is scored.
        task: ``ASR``, ``VSR`` or ``AVSR``.
        view: task and rates, of a model of several.
        costs: of decoding clean speech; None where they were not measured.
        config: its ``config.yaml``.
        scores: condition → errors.
    """

    name: str
    path: Path
    tag: str
    task: str
    config: dict[str, Any]
    scores: dict[Condition, Score] = field(default_factory=dict)
    view: View | None = None
    costs: DecodingCosts | None = None

    def at(self, condition: Condition) -> Score | None:
        """Return the score under a condition; for VSR the clean score, whatever the noise."""
        if self.task == "VSR":
            condition = Condition(condition.test_set, "", CLEAN)
        return self.scores.get(condition)


class Difference(NamedTuple):
    """How system A compares with B under a condition.

    Attributes:
        a: name of system A.
        b: name of system B.
        errors: errors of A minus errors of B.
        bootstrap: the paired bootstrap.
        test: the matched-pairs test.
        p_holm: p value of the test, adjusted for the number of pairs under this condition.
    """

    a: str
    b: str
    errors: int
    bootstrap: Comparison
    test: MatchedPairs
    p_holm: float

    @property
    def significant(self) -> bool:
        """Whether the adjusted matched-pairs test finds a difference at 5 %."""
        return self.p_holm < 0.05


def find_experiments(paths: Sequence[Path]) -> list[Path]:
    """Return the experiments among the paths and one level below them.

    Raises:
        ScoringError: a path is not a directory.
    """
    found = []
    for path in paths:
        if not path.is_dir():
            raise ScoringError(f"{path} is not a directory")
        candidates = [path] if (path / "config.yaml").is_file() else sorted(path.glob("*/"))
        found += [p for p in candidates if (p / "config.yaml").is_file()]
    return list(dict.fromkeys(found))


def read_systems(
    experiments: Sequence[Path], *, metric: str, unit: str, shorten: bool = False
) -> list[System]:
    """Read all scored decode directories of experiments.

    Args:
        experiments: their directories.
        metric: ``wer`` or ``cer``.
        unit: what the bootstrap draws, ``speaker`` or ``utterance``.
        shorten: leave ``avsr_`` and ``train_`` out of names where they stay unique.

    Raises:
        ScoringError: a decode directory's files do not belong together, or a config is not of a
            model of this project.
    """
    names = unique_names(experiments, _shortened if shorten else str)
    systems = []
    for experiment, name in zip(experiments, names, strict=True):
        config = load_config(experiment / "config.yaml")
        task = TASKS.get(tuple(m for m in MODALITIES if config.get(f"{m}_frontend")))
        if task is None:
            raise ScoringError(
                f"{experiment / 'config.yaml'} sets neither audio_frontend nor video_frontend: "
                "give the experiments to compare one by one"
            )
        decodes: dict[str, list[Decode]] = {}
        for decode in find_decodes(experiment, metric):
            decodes.setdefault(decode.tag, []).append(decode)
        if not decodes:
            decodes[""] = []  # a system without scores
        for tag, of_tag in decodes.items():
            scores = {d.condition: Score.read(d.path, metric=metric, unit=unit) for d in of_tag}
            system = System(name, experiment, tag, task, config, scores)
            _read_costs(system)
            systems.append(system)
    if len({system.tag for system in systems if system.tag}) > 1:
        _tell_apart(systems)
    return systems


def _read_costs(system: System) -> None:
    """Set the costs of decoding, and the task and rates that they record."""
    clean = next((s.path for c, s in system.scores.items() if c.snr == CLEAN), None)
    system.costs = None if clean is None else DecodingCosts.read(clean)
    if system.costs is not None and system.costs.task:
        system.view = View(system.costs.task, system.costs.rates)
        system.task = system.costs.task.upper()


def _tell_apart(systems: Sequence[System]) -> None:
    """Add the view to each system's name, or its tag where views are not enough."""
    views = [s.view.tag if s.view and s.view.rates else s.tag for s in systems]
    names = [f"{s.name} {view}".rstrip() for s, view in zip(systems, views, strict=True)]
    if len(set(names)) < len(names):
        names = [f"{s.name} {s.tag}".rstrip() for s in systems]
    for system, name in zip(systems, names, strict=True):
        system.name = name


def _shortened(name: str) -> str:
    return name.removeprefix("avsr_").removeprefix("train_")


def unique_names(paths: Sequence[Path], shortened: Callable[[str], str] = str) -> list[str]:
    """Return the shortest unique name of each path: its last parts.

    Args:
        paths: what to name.
        shortened: makes a last part shorter; not applied where names would be the same.
    """
    whole = [path.absolute() for path in paths]
    names: list[str] = []
    for last_part in (shortened, str):
        for depth in range(1, max((len(path.parts) for path in whole), default=0) + 1):
            names = ["/".join([*p.parts[-depth:-1], last_part(p.name)]) for p in whole]
            if len(set(names)) == len(names):
                return names
    return names


def conditions(systems: Sequence[System]) -> list[Condition]:
    """Return all conditions under which a system has a score, in order."""
    return sorted({c for s in systems for c in s.scores if s.at(c)}, key=lambda c: c.order)


def compare(systems: Sequence[System], condition: Condition) -> list[Difference]:
    """Compare all pairs of systems that were tested on the same utterances."""
    scored = [(s.name, score) for s in systems if (score := s.at(condition))]
    pairs = [(a, b) for a, b in combinations(scored, 2) if a[1].same_test(b[1])]
    tests = [matched_pairs(one.alignments, other.alignments) for (_, one), (_, other) in pairs]
    adjusted = holm([test.p_value for test in tests])
    return [
        Difference(a, b, sum(one.errors) - sum(other.errors), one.compare(other), test, p_holm)
        for ((a, one), (b, other)), test, p_holm in zip(pairs, tests, adjusted, strict=True)
    ]
