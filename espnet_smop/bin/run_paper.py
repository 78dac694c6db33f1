#!/usr/bin/env python3
"""The paper's experiments: list what is to do, check every config, print the tables.

``local/run_paper.sh`` of the LRS3 recipe calls this and trains. Results are the names of tables in
the file of experiments, such as ``table1``; none means all.

Example::

    python -m espnet_smop.bin.run_paper table conf/paper.yaml table1 --expdir exp
    python -m espnet_smop.bin.run_paper dry_run conf/paper.yaml --machine 1x24gb --throughput 30
"""

import argparse
import contextlib
import logging
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from espnet_smop.base_model import BaseModelError
from espnet_smop.experiments.hours import read_machine
from espnet_smop.experiments.paper import (
    Experiment,
    Paper,
    PaperError,
    experiments,
    read,
    write_config,
)
from espnet_smop.experiments.results import is_trained, missing, table
from espnet_smop.scoring.transcripts import ScoringError


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("plan", "dry_run", "table"))
    parser.add_argument("paper", type=Path, help="File of experiments, conf/paper.yaml")
    parser.add_argument("results", nargs="*", help="Tables; none means all")
    parser.add_argument("--expdir", type=Path, default=Path("exp"), help="Experiments")
    parser.add_argument("--machine", default="1x80gb", help="One of conf/machine/*.yaml")
    parser.add_argument("--only", default="", help="Only experiments whose names contain this")
    parser.add_argument("--inference_tag", default="decode", help="Name of decode directories")
    parser.add_argument("--model", default="valid.acc.ave.pth", help="Checkpoint that is decoded")
    parser.add_argument("--noise", default="babble", help="Name of the noise in decode directories")
    parser.add_argument(
        "--throughput",
        nargs="+",
        default=[],
        metavar="[SETTING=]H",
        help="Hours of speech that this machine trains on in an hour, as you measured it, of all "
        "experiments or of those with a setting (llama3.2_1b=H); without it hours are estimated "
        "from the operations and the peak of the machine's GPUs (gpus.yaml beside the paper's)",
    )
    parser.add_argument(
        "--steps_per_epoch",
        type=int,
        help="Optimizer steps of an epoch, for a training set of another size (default: as the "
        "configs say)",
    )
    return parser


def _chosen(paper: Paper, args: argparse.Namespace) -> list[str]:
    for name in args.results:
        if name not in paper.results:
            raise PaperError(f"{paper.path} has no {name}, only {', '.join(paper.results)}")
    return args.results or list(paper.results)


def _experiments(paper: Paper, args: argparse.Namespace) -> dict[Experiment, list[str]]:
    found = experiments(paper.results[name] for name in _chosen(paper, args))
    found = {e: snrs for e, snrs in found.items() if args.only in e.name}
    if not found:
        raise PaperError(f"--only {args.only}: no experiment's name contains it")
    return found


def _config(paper: Paper, experiment: Experiment, args: argparse.Namespace) -> Path:
    return write_config(
        paper, experiment, args.machine, args.expdir / "paper" / "conf", args.steps_per_epoch
    )


def plan(paper: Paper, args: argparse.Namespace) -> None:
    """Write the configs; print a line for each experiment, its fields separated by tabs.

    Name, config, ``trained`` or ``untrained``, and the noise levels to be decoded yet.
    """
    for experiment, snrs in _experiments(paper, args).items():
        config = _config(paper, experiment, args)
        trained = is_trained(args.expdir, experiment, args.model)
        todo = missing(args.expdir, experiment, snrs, args.inference_tag, args.noise)
        fields = (experiment.name, config, "trained" if trained else "untrained", " ".join(todo))
        print(*fields, sep="\t")


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Let nothing that building dozens of models warns of bury what is printed of them."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def dry_run_all(paper: Paper, args: argparse.Namespace) -> None:
    """Build every experiment's model for its shapes; print what it would do."""
    from espnet_smop.analysis.training_flops import TrainingFlops
    from espnet_smop.experiments.dry_run import dry_run

    chosen = _experiments(paper, args)
    speeds = _throughputs(paper, args.throughput)
    gpus = paper.path.parent / "gpus.yaml"
    machine = read_machine(gpus, args.machine)
    flops = TrainingFlops()
    estimates: dict[Experiment, float | None] = {}  # of what is not trained yet
    with tempfile.TemporaryDirectory() as skeletons:
        for number, (experiment, snrs) in enumerate(chosen.items(), 1):
            config = _config(paper, experiment, args)
            with _without_warnings():
                found = dry_run(config, Path(skeletons), flops)
            todo = missing(args.expdir, experiment, snrs, args.inference_tag, args.noise)
            trained = is_trained(args.expdir, experiment, args.model)
            speed = next((speeds[s] for s in (*experiment.settings, "") if s in speeds), None)
            took = None
            hours = f"give a measured --throughput: {args.machine} is not in {gpus}"
            if speed is not None:
                took = found.training_hours(speed)
                hours = f"{took:,.0f} at {speed:g} hours of speech per hour (estimate)"
            elif found.flops_per_second is None:
                hours = "give a measured --throughput: its operations cannot be counted"
            elif machine is not None:
                took = machine.hours(3600 * found.hours_of_speech * found.flops_per_second)
                hours = (
                    f"{took:,.0f} on {machine} (estimate: share of the peak measured "
                    f"{machine.measured})"
                )
            if not trained:
                estimates[experiment] = took
            would = ["not train (done)" if trained else "train"]
            would.append(f"decode {', '.join(todo)}" if todo else "not decode")
            print(f"{experiment.name} ({number} of {len(chosen)})")
            print(f"  config    {config}")
            print(f"  bases     {', '.join(found.bases.values())}")
            print(f"  trained   {found.trained:,} of {found.trained + found.frozen:,} parameters")
            for line in found.table.splitlines():
                print(f"    {line}")
            print(
                f"  memory    {found.state_bytes / 2**30:.1f} GiB of weights, gradients and "
                "optimizer states on each GPU; activations come on top"
            )
            print(
                f"  a step    {found.frames_per_step:,} frames: {found.frames_per_batch:,} a batch "
                f"x accum_grad {found.accum_grad}"
            )
            print(
                f"  training  {found.max_epoch} epochs, {found.steps:,} steps, "
                f"{found.hours_of_speech:,.0f} hours of speech"
            )
            if found.flops_per_second is not None:
                second = found.flops_per_second / 1e12
                step = 3600 * found.hours_of_speech / found.steps * second
                print(
                    f"  compute   {second:.3f} TFLOP for a second of speech, {step:,.0f} for a "
                    "step, forward and backward"
                )
            print(f"  hours     {hours}")
            print(f"  would     {', '.join(would)}", flush=True)
    for name in _chosen(paper, args):
        print(_sum(name, estimates, experiments([paper.results[name]])))
    total = _sum("all, what they share once", estimates, chosen)
    print(f"{len(chosen)} experiments, every config holds; {total}")


def _sum(
    name: str, estimates: Mapping[Experiment, float | None], some: Iterable[Experiment]
) -> str:
    """Return a line with the hours of some experiments, as far as they are not trained."""
    hours = [estimates[e] for e in some if e in estimates]
    known = [h for h in hours if h is not None]
    which = f"{len(known)} of the " if len(known) < len(hours) else ""
    return f"{name}: {which}{len(hours)} to train, {sum(known):,.0f} hours (estimate)"


def _throughputs(paper: Paper, given: Sequence[str]) -> dict[str, float]:
    """Return setting → throughput; the empty name stands for all others."""
    speeds = {}
    for word in given:
        name, _, number = word.rpartition("=")
        try:
            speeds[name] = float(number)
        except ValueError:
            raise PaperError(f"--throughput {word}: expected a number or SETTING=NUMBER") from None
        if name and name not in paper.settings:
            raise PaperError(f"--throughput {word}: {name} is not a setting of {paper.path}")
        if not speeds[name] > 0:
            raise PaperError(f"--throughput {word}: the number must be above 0")
    return speeds


def tables(paper: Paper, args: argparse.Namespace) -> None:
    """Print the tables, whole ones also where --only chooses some of their experiments."""
    _experiments(paper, args)
    texts = [
        table(paper.results[name], args.expdir, args.inference_tag, args.noise)
        for name in _chosen(paper, args)
    ]
    print("\n\n".join(texts))


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = get_parser()
    args = parser.parse_args(cmd)
    action = {"plan": plan, "dry_run": dry_run_all, "table": tables}[args.action]
    try:
        action(read(args.paper), args)
    except (ScoringError, BaseModelError, OSError, ValueError) as e:
        sys.exit(f"run_paper: {e}")


if __name__ == "__main__":
    main()
