"""Decoded experiments as systems to compare: what they are, what they got wrong, and how sure."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from espnet_smop.analysis.bootstrap import interval, paired
from espnet_smop.analysis.matched_pairs import Alignment, holm, matched_pairs
from espnet_smop.config import load_config
from espnet_smop.scoring.decodes import (
    CLEAN,
    Decode,
    UtteranceErrors,
    errors_of,
    find_decodes,
    read_alignments,
)
from espnet_smop.scoring.transcripts import ScoringError

TASKS = {("audio",): "ASR", ("video",): "VSR", ("audio", "video"): "AVSR"}
FEW_SPEAKERS = 20
"""With fewer, intervals over speakers are too narrow to rely on."""


class Condition(NamedTuple):
    """What a system is tested on."""

    test_set: str
    noise: str
    """Name of the noise; empty for clean speech."""
    snr: str
    """Ratio in dB, or ``clean``."""

    def __str__(self) -> str:
        level = CLEAN if self.snr == CLEAN else f"{self.noise} {self.snr} dB"
        return f"{self.test_set}, {level}"

    @property
    def order(self) -> tuple:
        """Test sets by name, clean first, then from little noise to much."""
        return self.test_set, self.snr != CLEAN, self.noise, -_decibel(self.snr)


def _decibel(snr: str) -> float:
    return 0.0 if snr == CLEAN else float(snr)


@dataclass
class Score:
    """A system's errors under a condition.

    Attributes:
        path: the decode directory.
        errors: by utterance.
        alignments: by utterance.
        low: lower end of the 95 % interval of the error rate.
        high: upper end.
    """

    path: Path
    errors: UtteranceErrors
    alignments: list[Alignment]
    low: float
    high: float


@dataclass
class System:
    """An experiment, as decoded under one tag.

    Attributes:
        name: short, unique among the systems compared.
        path: the experiment.
        task: ``ASR``, ``VSR`` or ``AVSR``.
        config: its ``config.yaml``.
        scores: condition → errors.
    """

    name: str
    path: Path
    task: str
    config: dict[str, Any]
    scores: dict[Condition, Score] = field(default_factory=dict)


class Difference(NamedTuple):
    """How system A compares with B under a condition; rates in errors per word."""

    condition: Condition
    a: str
    b: str
    difference: float
    low: float
    high: float
    errors: int
    """Errors of A minus those of B."""
    bootstrap_p: float
    segments: int
    z: float
    matched_pairs_p: float
    matched_pairs_holm: float
    """Adjusted for the number of pairs under this condition."""

    @property
    def significant(self) -> bool:
        """Whether the matched-pairs test, adjusted, finds a difference at 5 %."""
        return self.matched_pairs_holm < 0.05


def read_systems(experiments: Sequence[Path], *, metric: str, unit: str) -> list[System]:
    """Read all scored decode directories of experiments.

    Args:
        experiments: their directories.
        metric: ``wer`` or ``cer``.
        unit: what the bootstrap draws, ``speaker`` or ``utterance``.

    Raises:
        ScoringError: a decode directory's files do not belong together, or a config is of no model
            of this project.
    """
    found: dict[tuple[Path, str], list[Decode]] = {}
    for experiment in experiments:
        found.setdefault((experiment, ""), [])
        for decode in find_decodes(experiment, metric):
            found.setdefault((experiment, decode.path.parent.name), []).append(decode)
    # An experiment that is not decoded is still one to look into.
    decoded = {experiment for experiment, tag in found if tag}
    keys = [(e, tag) for e, tag in found if tag or e not in decoded]
    systems = []
    for (experiment, tag), name in zip(keys, _names(keys), strict=True):
        config = load_config(experiment / "config.yaml")
        modalities = tuple(m for m in ("audio", "video") if config.get(f"{m}_frontend"))
        if modalities not in TASKS:
            raise ScoringError(
                f"{experiment / 'config.yaml'} sets neither audio_frontend nor video_frontend: "
                "name the experiments that are meant"
            )
        system = System(name, experiment, TASKS[modalities], config)
        for decode in found[experiment, tag]:
            condition = Condition(decode.test_set, decode.noise, decode.snr)
            system.scores[condition] = _score(decode.path, metric, unit)
        systems.append(system)
    return systems


def _names(keys: Sequence[tuple[Path, str]]) -> list[str]:
    experiments = list(dict.fromkeys(e for e, _ in keys))
    names = dict(zip(experiments, unique_names(experiments, _shortened), strict=True))
    several = len(experiments) < len(keys)
    return [f"{names[e]} ({tag})" if several and tag else names[e] for e, tag in keys]


def _shortened(name: str) -> str:
    return name.removeprefix("avsr_").removeprefix("train_")


def unique_names(
    paths: Sequence[Path], shortened: Callable[[str], str] = lambda name: name
) -> list[str]:
    """Return a name for each of different paths: as few of its last parts as tell them apart.

    Args:
        paths: what to name.
        shortened: makes a last part shorter; not applied where names are the same then.
    """
    whole = [path.absolute() for path in paths]
    names: list[str] = []
    for last_part in (shortened, str):
        for depth in range(1, max((len(path.parts) for path in whole), default=0) + 1):
            names = ["/".join([*p.parts[-depth:-1], last_part(p.name)]) for p in whole]
            if len(set(names)) == len(names):
                return names
    return names


def _score(path: Path, metric: str, unit: str) -> Score:
    references, alignments = read_alignments(path, metric)
    errors = errors_of(references, alignments)
    low, high = interval(errors.errors, errors.words, groups=groups(errors, unit))
    return Score(path, errors, alignments, low, high)


def groups(errors: UtteranceErrors, unit: str) -> list[str] | None:
    """Return what the bootstrap draws: the speakers, or None for utterances."""
    return errors.speakers if unit == "speaker" else None


def conditions(systems: Sequence[System]) -> list[Condition]:
    """Return all conditions under which something can be said of a system, in order."""
    return sorted({c for s in systems for c in s.scores if score_at(s, c)}, key=lambda c: c.order)


def score_at(system: System, condition: Condition) -> Score | None:
    """Return a system's score; of one that only sees, the clean one whatever the noise."""
    if system.task == "VSR":
        condition = Condition(condition.test_set, "", CLEAN)
    return system.scores.get(condition)


def compare(systems: Sequence[System], condition: Condition, unit: str) -> list[Difference]:
    """Compare all pairs of systems that were tested on the same utterances."""
    pairs = []
    for a, b in combinations(systems, 2):
        one, other = score_at(a, condition), score_at(b, condition)
        if one is None or other is None:
            continue
        same = (one.errors.names, one.errors.words) == (other.errors.names, other.errors.words)
        if same:
            pairs.append((a.name, b.name, one, other))
    tests = [matched_pairs(one.alignments, other.alignments) for *_, one, other in pairs]
    adjusted = holm([test.p_value for test in tests])
    out = []
    for (a, b, one, other), test, p_holm in zip(pairs, tests, adjusted, strict=True):
        drawn = paired(
            one.errors.errors, other.errors.errors, one.errors.words,
            groups=groups(one.errors, unit),
        )  # fmt: skip
        out.append(
            Difference(
                condition, a, b, drawn.difference, drawn.low, drawn.high,
                sum(one.errors.errors) - sum(other.errors.errors), drawn.p_value,
                test.segments, test.z, test.p_value, p_holm,
            )
        )  # fmt: skip
    return out


_MODEL = (
    "audio_frontend", "audio_frontend_conf", "video_frontend", "video_frontend_conf",
    "projector", "projector_conf", "decoder", "decoder_conf", "model_conf",
)  # fmt: skip


def alike_but_for(config: dict[str, Any], what: str) -> str:
    """Return a text that is the same for configs whose models differ in one thing at most.

    Args:
        config: an experiment's config.
        what: ``experts`` (their number) or ``size`` (encoders, LLM, and LoRA's width with it).
    """
    kept = {name: config.get(name) for name in _MODEL}
    if what == "experts":
        kept["projector_conf"] = _without(kept["projector_conf"], "num_experts")
    else:
        for part in ("audio_frontend_conf", "video_frontend_conf", "decoder_conf"):
            kept[part] = _without(kept[part], "model", "lora")
    return json.dumps(kept, sort_keys=True, default=str)


def _without(conf: dict[str, Any] | None, *keys: str) -> dict[str, Any]:
    return {k: v for k, v in (conf or {}).items() if k not in keys}


def num_experts(config: dict[str, Any]) -> int | None:
    """Return the experts of each pool; None where pools differ, or where there are no routers."""
    if config.get("projector") != "smop":
        return None
    value = (config.get("projector_conf") or {}).get("num_experts", 3)
    if isinstance(value, dict):
        sizes = {value.get(m, 3) for m in ("audio", "video") if config.get(f"{m}_frontend")}
        return sizes.pop() if len(sizes) == 1 else None
    return int(value)
