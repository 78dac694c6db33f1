"""What a system's model and logs say beside its hypotheses."""

import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from espnet2.fileio.read_text import read_2columns_text

from espnet_smop.analysis.accounting import Parameters, count_parameters
from espnet_smop.analysis.routing_pass import RoutingPass, run_pass
from espnet_smop.analysis.systems import System
from espnet_smop.base_model import BaseModelError

_FLOP_UTTS = 4


@dataclass
class Measured:
    """What was found out about a system.

    Attributes:
        parameters: their numbers; None where the sizes of a base model are not known.
        routing: usage of experts and operations; empty without a pass.
        problems: why something is missing.
    """

    parameters: Parameters | None = None
    routing: RoutingPass = field(default_factory=RoutingPass)
    problems: list[str] = field(default_factory=list)


def choose_utterances(data_dir: Path, number: int, shown: str | None) -> tuple[list[str], str]:
    """Return the utterances to count tokens of, and the one to show.

    Args:
        data_dir: formatted data directory.
        number: how many, evenly spread over the sorted ids; 0 for all.
        shown: the one to show; None takes one of median length.

    Raises:
        ValueError: the utterance is not there, or there is none.
        OSError: the directory has no ``text``.
    """
    uids = sorted(read_2columns_text(data_dir / "text"))
    if not uids:
        raise ValueError(f"{data_dir}/text is empty")
    if shown is not None and shown not in uids:
        raise ValueError(f"--utterance {shown}: {data_dir} has no such utterance")
    step = max(1.0, len(uids) / number) if number else 1.0
    chosen = [uids[int(k * step)] for k in range(int(len(uids) / step + 1e-9))]
    if shown is None:
        lengths = data_dir / "utt2num_frames"
        if lengths.is_file():
            frames = read_2columns_text(lengths)
            chosen_by_length = sorted(uids, key=lambda uid: (int(frames.get(uid, 0)), uid))
            shown = chosen_by_length[len(uids) // 2]
        else:
            shown = uids[0]
    return chosen, shown


def measure(
    system: System, *, model: str, data_dir: Path | None, uids: list[str], shown: str, device: str
) -> Measured:
    """Count parameters, and send utterances through the model where there is one.

    What cannot be had does not end the analysis: it is said in ``problems``.
    """
    measured = Measured()
    with tempfile.TemporaryDirectory() as skeletons:
        try:
            measured.parameters = count_parameters(system.config, Path(skeletons))
        except (BaseModelError, ValueError) as e:
            measured.problems.append(f"no number of parameters ({e})")
    if data_dir is None:
        return measured
    checkpoint = system.path / model
    if not checkpoint.is_file():
        measured.problems.append(f"no expert usage and operations ({checkpoint} does not exist)")
        return measured
    try:
        measured.routing = run_pass(
            system.path / "config.yaml", checkpoint, data_dir,
            uids=uids, strip_uid=shown,
            flop_uids=uids[:: max(1, len(uids) // _FLOP_UTTS)][:_FLOP_UTTS],
            device=device,
        )  # fmt: skip
    except (BaseModelError, OSError, RuntimeError, ValueError, KeyError) as e:
        logging.debug("", exc_info=True)
        cause = f"{e} is missing in {data_dir}" if isinstance(e, KeyError) else e
        measured.problems.append(f"no expert usage and operations ({cause})")
    return measured
