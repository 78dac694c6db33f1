"""Measurements of a system's model: parameters, operations, expert usage."""

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from espnet_smop.base_model import BaseModelError
from espnet_smop.fileio.durations import read_lengths
from espnet_smop.fileio.table import read_table
from espnet_smop.modality import AUDIO, VIDEO
from espnet_smop.results.parameters import Parameters, count_parameters
from espnet_smop.results.phones import Alignment
from espnet_smop.results.routing_pass import RoutingPass, run_pass
from espnet_smop.results.systems import System

_FLOP_UTTS = 4


@dataclass
class Measured:
    """Findings about a system.

    Attributes:
        parameters: their counts; None if the sizes of a base model are unknown.
        routing: usage of experts and operations; empty without a pass.
        problems: reasons why something is missing.
    """

    parameters: Parameters | None = None
    routing: RoutingPass = field(default_factory=RoutingPass)
    problems: list[str] = field(default_factory=list)


def choose_utterances(data_dir: Path, number: int, strip: str | None) -> tuple[list[str], str]:
    """Return the utterances whose tokens are counted, and the one shown over time.

    Args:
        data_dir: formatted data directory.
        number: how many, evenly spread over the sorted ids; 0 for all.
        strip: id of the utterance to show; None takes one of median length.

    Raises:
        ValueError: the utterance to show is not in the directory, or there is none.
        TableError: the directory has no ``text``.
    """
    uids = sorted(read_table(data_dir / "text"))
    if not uids:
        raise ValueError(f"{data_dir}/text is empty")
    if strip is not None and strip not in uids:
        raise ValueError(f"--utterance {strip}: {data_dir} has no such utterance")
    step = max(1.0, len(uids) / number) if number else 1.0
    chosen = [uids[int(k * step)] for k in range(int(len(uids) / step + 1e-9))]
    if strip is None:
        lengths = read_lengths(data_dir, VIDEO) or read_lengths(data_dir, AUDIO) or {}
        strip = sorted(uids, key=lambda uid: (lengths.get(uid, 0), uid))[len(uids) // 2]
    return chosen, strip


def measure(
    system: System,
    *,
    model: str,
    data_dir: Path | None,
    uids: list[str],
    strip: str,
    phones: Mapping[str, Alignment] | None = None,
    device: str,
) -> Measured:
    """Count parameters and, with data, send utterances through the trained model.

    What cannot be measured is listed in ``problems`` and does not stop the report.
    """
    measured = Measured()
    with tempfile.TemporaryDirectory() as skeletons:
        try:
            measured.parameters = count_parameters(system.config, Path(skeletons))
        except (BaseModelError, ValueError) as e:
            measured.problems.append(f"no parameter counts ({e})")
    if data_dir is None:
        return measured
    checkpoint = system.path / model
    if not checkpoint.is_file():
        measured.problems.append(f"no expert usage and operations ({checkpoint} does not exist)")
        return measured
    try:
        measured.routing = run_pass(
            system.path / "config.yaml",
            checkpoint,
            data_dir,
            uids=uids,
            strip_uid=strip,
            flop_uids=uids[:: max(1, len(uids) // _FLOP_UTTS)][:_FLOP_UTTS],
            phones=phones,
            device=device,
            view=system.view,
        )
    except (BaseModelError, OSError, RuntimeError, ValueError, KeyError) as e:
        logging.debug("", exc_info=True)
        cause = f"{e} is missing in {data_dir}" if isinstance(e, KeyError) else e
        measured.problems.append(f"no expert usage and operations ({cause})")
    return measured
