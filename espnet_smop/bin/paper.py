#!/usr/bin/env python3
"""The paper's experiments: list what is left to do, check every config, print the tables.

``local/run_paper.sh`` of the LRS3 recipe calls this and trains. Tables are named as in the file of
experiments, such as ``table1``; without names all are used. Each COMMAND has its own ``--help``.
"""

import argparse
import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from espnet_smop.command import call_subcommand, run, str2bool
from espnet_smop.experiments.paper import (
    Decoding,
    Experiment,
    Paper,
    PaperError,
    calls,
    experiments,
    read,
    write_config,
)
from espnet_smop.experiments.results import is_trained, missing, table
from espnet_smop.results.intervals import UNIT_HELP, UNITS
from espnet_smop.text_table import text_table

GPUS = (24, 80)  # GiB
SETS = ("train", "valid", "test")
REMEDIES = {
    "LRS3": "set its directory in db.sh",
    "AV-HuBERT": "get its large_vox_iter5.pt, then ./run.sh --stage 6 --stop_stage 6 "
    "--base_models_opts '--avhubert_checkpoint FILE'",
    "token": "accept Llama's licence at https://huggingface.co/meta-llama, then `hf auth login`",
    "GPU": "none visible: check CUDA_VISIBLE_DEVICES, nvidia-smi",
}


def plan(args: argparse.Namespace) -> None:
    """Write the configs and list what is left to do, for scripts.

    Prints a tab-separated line per call of ``run.sh``: name of the experiment, config, ``trained``
    or ``untrained``, and the noise levels and views still to decode. Further lines of an
    experiment assume that it is trained.

    Example::

        python -m espnet_smop.bin.paper plan conf/paper.yaml table2 --only llama3.2_3b
    """
    paper = read(args.paper)
    for experiment, decodings in _experiments(paper, args).items():
        config = _config(paper, experiment, args)
        trained = is_trained(args.expdir, experiment, args.model)
        todo = missing(args.expdir, experiment, decodings, args.inference_tag, args.noise)
        for snrs, views in calls(todo) or [([], [])]:
            state = "trained" if trained else "untrained"
            print(experiment.name, config, state, " ".join(snrs), " ".join(views), sep="\t")
            trained = True


def dry_run_all(args: argparse.Namespace) -> int:
    """Check every config by building its model without weights; print a row per experiment.

    Needs neither weights nor data nor a GPU. ``state GiB`` is the memory of weights, gradients and
    optimizer states on each GPU; ``GiB`` adds the activations of ``--machine``'s batches, computed
    from shapes and not measured; ``fits`` lists the GPUs, of 24 and 80 GiB, that have 2 GiB more.
    ``missing here`` lists what training needs but this machine lacks. Configs with errors are
    listed below the table, and the exit status is 1.

    Example::

        python -m espnet_smop.bin.paper dry_run conf/paper.yaml --machine 1x24gb --throughput 30
    """
    # Late: the other commands do not need the task and its models.
    from espnet_smop.base_model import BaseModelError
    from espnet_smop.experiments.dry_run import DryRunError, dry_run, what_is_missing
    from espnet_smop.experiments.memory import RESERVED

    paper = read(args.paper)
    chosen = _experiments(paper, args)
    throughputs = _throughputs(paper, args.throughput)
    hours: dict[Experiment, float | None] = {}  # of experiments that are not trained yet
    prepared = all((args.dumpdir / "raw" / name / "text").is_file() for name in SETS)
    has_corpus = prepared or (bool(os.environ.get("LRS3")) and Path(os.environ["LRS3"]).is_dir())
    rows, problems = [], []
    with tempfile.TemporaryDirectory() as skeletons:
        progress = tqdm(chosen.items(), leave=False, disable=None)  # where there is a terminal
        for experiment, decodings in progress:
            config = _config(paper, experiment, args)
            try:
                with _without_warnings():
                    found = dry_run(config, Path(skeletons), gpus=_gpus(args.machine))
            except (DryRunError, BaseModelError) as e:
                problems.append(f"{experiment.name}: {e}")
                continue
            named = (throughputs[s] for s in (*experiment.settings, "") if s in throughputs)
            throughput = next(named, None)
            took = None if throughput is None else found.training_hours(throughput)
            trained = is_trained(args.expdir, experiment, args.model)
            if not trained:
                hours[experiment] = took
            if args.verbose:
                progress.write(f"{experiment.name}\n  config    {config}\n{found}")
            todo = missing(args.expdir, experiment, decodings, args.inference_tag, args.noise)
            lacking = [] if has_corpus else ["LRS3"]
            lacking += [] if trained else what_is_missing(found.bases.values())
            rows.append([
                experiment.name,
                f"{found.trained / 1e6:.1f}",
                f"{found.state_bytes / 2**30:.1f}",
                *_fits(found.state_bytes, found.activation_bytes, RESERVED),
                *([] if not throughputs else ["–" if took is None else f"{took:,.0f}"]),
                "done" if trained else "train",
                _listed(todo),
                ", ".join(lacking) or "–",
            ])  # fmt: skip
    header = ["experiment", "trained M", "state GiB", "GiB", "fits"]
    header += ["hours"] if throughputs else []
    print(text_table([*header, "training", "to decode", "missing here"], rows, align="lrrrr"))
    print()
    for name in sorted({name for row in rows for name in row[-1].split(", ")} & REMEDIES.keys()):
        print(f"{name}: {REMEDIES[name]}")
    for name in _chosen(paper, args):
        print(f"{name}: {_sum(hours, experiments([paper.results[name]]))}")
    total = _sum(hours, chosen)
    valid = f"{len(problems)} configs with errors" if problems else "all configs valid"
    print(f"{len(chosen)} experiments, {valid}. Total, counting shared experiments once: {total}")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence warnings while dozens of models are built: they would bury the output."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _gpus(machine: str) -> int:
    """Return the number of GPUs that a machine's name begins with: 8x80gb."""
    found = re.match(r"(\d+)x", machine)
    return int(found[1]) if found else 1


def _fits(state: int, activations: int | None, reserved: int) -> tuple[str, str]:
    """Return the training memory per GPU in GiB, and the GPU sizes that suffice."""
    if activations is None:
        return "–", "–"
    total = (state + activations) / 2**30
    sizes = [str(gib) for gib in GPUS if total + reserved / 2**30 <= gib]
    return f"{total:.1f}", " ".join(sizes) or "none"


def _listed(todo: Iterable[Decoding]) -> str:
    """Describe what is left to decode, such as ``asr:4 vsr:2 clean; avsr:4,2 clean, 0``."""
    parts = [" ".join([*views, ", ".join(snrs)]) for snrs, views in calls(todo)]
    return "; ".join(parts) or "done"


def _sum(hours: Mapping[Experiment, float | None], some: Iterable[Experiment]) -> str:
    """Describe how many of some experiments are left to train, and how long they take."""
    left = [hours[e] for e in some if e in hours]
    known = [h for h in left if h is not None]
    text = f"{len(left)} to train"
    if known:
        text += f", {sum(known):,.0f} hours"
    if known and len(known) < len(left):
        text += f" for the {len(known)} with a --throughput"
    return text


def _throughputs(paper: Paper, given: Sequence[str]) -> dict[str, float]:
    """Return setting → throughput; the empty name is for all others."""
    throughputs = {}
    for word in given:
        name, _, number = word.rpartition("=")
        try:
            throughputs[name] = float(number)
        except ValueError:
            raise PaperError(f"--throughput {word}: expected a number or SETTING=NUMBER") from None
        if name and name not in paper.settings:
            raise PaperError(f"--throughput {word}: {name} is not a setting of {paper.path}")
        if not throughputs[name] > 0:
            raise PaperError(f"--throughput {word}: the number must be above 0")
    return throughputs


def tables(args: argparse.Namespace) -> None:
    """Print the tables: our results beside the paper's.

    Example::

        python -m espnet_smop.bin.paper table conf/paper.yaml table1 --expdir exp
    """
    paper = read(args.paper)
    texts = [
        table(paper.results[name], args.expdir, args.inference_tag, args.noise, unit=args.unit)
        for name in _chosen(paper, args)
    ]
    print("\n\n".join(texts))


def _chosen(paper: Paper, args: argparse.Namespace) -> list[str]:
    for name in args.results:
        if name not in paper.results:
            raise PaperError(f"{paper.path} has no {name}, only {', '.join(paper.results)}")
    return args.results or list(paper.results)


def _experiments(paper: Paper, args: argparse.Namespace) -> dict[Experiment, list[Decoding]]:
    found = experiments(paper.results[name] for name in _chosen(paper, args))
    found = {e: decodings for e, decodings in found.items() if args.only in e.name}
    if not found:
        raise PaperError(f"--only {args.only}: no experiment's name contains it")
    return found


def _config(paper: Paper, experiment: Experiment, args: argparse.Namespace) -> Path:
    return write_config(
        paper, experiment, args.machine, args.expdir / "paper" / "conf", args.steps_per_epoch
    )


def _table_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paper", type=Path, help="File of experiments, conf/paper.yaml")
    parser.add_argument("results", nargs="*", help="Tables (default: all)")
    parser.add_argument(
        "--exp_dir", "--expdir", dest="expdir", type=Path, default=Path("exp"), help="Experiments"
    )
    parser.add_argument("--inference_tag", default="decode", help="Name of decode directories")
    parser.add_argument("--noise", default="babble", help="Name of the noise in decode directories")


def _results_arguments(parser: argparse.ArgumentParser) -> None:
    _table_arguments(parser)
    parser.add_argument("--unit", choices=UNITS, default=UNITS[0], help=UNIT_HELP)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    _table_arguments(parser)
    parser.add_argument("--machine", default="1x80gb", help="Name of a file with batch settings")
    parser.add_argument("--only", default="", help="Only experiments whose names contain this")
    parser.add_argument("--model", default="valid.acc.ave.pth", help="Checkpoint to decode")
    parser.add_argument(
        "--steps_per_epoch",
        type=int,
        help="Optimizer steps per epoch, for a training set of another size than the configs "
        "assume",
    )


def _dry_run_arguments(parser: argparse.ArgumentParser) -> None:
    _add_arguments(parser)
    parser.add_argument(
        "--verbose",
        type=str2bool,
        default=False,
        help="Print each model's parts, steps and config as well",
    )
    parser.add_argument("--dumpdir", type=Path, default=Path("dump"), help="Prepared data")
    parser.add_argument(
        "--throughput",
        nargs="+",
        default=[],
        metavar="[SETTING=]H",
        help="Measured throughput of the machine in hours of speech per hour of training, for all "
        "experiments or those with a setting (llama3.2_1b=H); prints hours of training",
    )


COMMANDS = [
    ("plan", _add_arguments, plan),
    ("dry_run", _dry_run_arguments, dry_run_all),
    ("table", _results_arguments, tables),
]


def main(cmd: Sequence[str] | None = None) -> int | None:
    """Run the subcommand that the command line names."""
    return call_subcommand(cmd, name="paper", description=__doc__, commands=COMMANDS)


if __name__ == "__main__":
    run(main)
