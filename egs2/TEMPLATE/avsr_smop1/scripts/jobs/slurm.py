#!/usr/bin/env python3
"""Run jobs on a Slurm cluster, submitted through submitit.

    slurm.py [--config conf/slurm.conf] [--gpu N] [--mem M] … [JOB=1:n] LOG COMMAND…

The config maps options to sbatch flags, in the format of Kaldi's slurm.pl:

    command sbatch --account=lab            flags for every job
    default gpu=0                           the value of an option that is not given
    option gpu=0 -p cpu                     flags for one value of an option
    option gpu=* -p gpu --gres=gpu:$0       flags for any other value
    option max_jobs_run=*                   accepted; limits the jobs of an array that run at once

The program waits for the jobs, prints their progress every 20 s, cancels them when terminated,
and exits with status 1 if any fails. A leading ``srun`` of COMMAND (ESPnet's launcher adds one for
several nodes) is dropped: submitit starts the command once on each node itself.
"""

from __future__ import annotations

import fnmatch
import os
import shlex
import signal
import sys
import time
from pathlib import Path

from contract import Job, last_line, parse, report_failures

_SHORT_FLAGS = {
    "A": "account", "C": "constraint", "J": "job-name", "N": "nodes", "c": "cpus-per-task",
    "n": "ntasks", "p": "partition", "q": "qos", "t": "time", "w": "nodelist", "x": "exclude",
}  # fmt: skip
_NOTE_EVERY = 20.0


class Task:
    """What runs on a node; pickled by value, so it finds its modules by itself."""

    def __init__(self, job: Job):
        self.log, self.command = str(job.log.absolute()), job.command
        self.directory = str(Path.cwd())
        self.modules = str(Path(__file__).resolve().parent)

    def __call__(self) -> int:
        """Run the command; every node but the first logs to a file of its own."""
        sys.path.insert(0, self.modules)
        os.chdir(self.directory)
        from contract import Job, run_job

        rank = int(os.environ.get("SLURM_PROCID", "0"))
        return run_job(Job(log_of_node(Path(self.log), rank), self.command))


def log_of_node(log: Path, node: int) -> Path:
    """Return where a node's output goes: the first one's to the log itself."""
    return log.with_name(f"{log.name}.node{node}") if node else log


def sbatch_flags(config: str, options: dict[str, str]) -> dict[str, str | bool]:
    """Return the long sbatch flags to which a config maps options.

    Raises:
        ValueError: the config lacks an option, or one of its lines cannot be parsed.
    """
    words: list[str] = []
    rules: dict[str, list[tuple[str, list[str]]]] = {}
    values: dict[str, str] = {}
    for number, line in enumerate(config.splitlines(), 1):
        kind, *rest = shlex.split(line, comments=True) or [""]
        if not kind:
            continue
        key, _, value = (rest[0] if rest else "").partition("=")
        if kind == "command":
            words += rest[1:]
        elif kind == "default" and value:
            values[key] = value
        elif kind == "option" and value:
            rules.setdefault(key, []).append((value, rest[1:]))
        else:
            raise ValueError(f"line {number} of the config cannot be parsed: {line}")
    values.update(options)
    for key, value in values.items():
        if key not in rules:
            raise ValueError(f"the config has no line 'option {key}=…' for --{key} {value}")
        # An exact value takes precedence over the wildcard, whatever the order of the lines.
        for pattern, flags in sorted(rules[key], key=lambda rule: "*" in rule[0]):
            if fnmatch.fnmatchcase(value, pattern):
                words += [flag.replace("$0", value) for flag in flags]
                break
    return _to_flags(words)


def _to_flags(words: list[str]) -> dict[str, str | bool]:
    flags: dict[str, str | bool] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            raise ValueError(f"the config has '{word}' where a flag of sbatch should be")
        name, has_value, value = word.lstrip("-").partition("=")
        if not word.startswith("--"):
            name = _SHORT_FLAGS.get(name, name)
            if name not in _SHORT_FLAGS.values():
                raise ValueError(f"write the long form of sbatch's {word} in the config")
        if has_value:
            flags[name] = value
        elif rest and not rest[0].startswith("-"):
            flags[name] = rest.pop(0)
        else:
            flags[name] = True
    return flags


def main(arguments: list[str]) -> int:
    """Submit what the command line asks for and wait for it."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 1
    try:
        import submitit
    except ImportError:
        print("slurm.py: submitit is missing: pip install 'espnet_smop[slurm]'", file=sys.stderr)
        return 1
    try:
        options, jobs = parse(arguments)
        config = Path(options.pop("config", "conf/slurm.conf"))
        flags = sbatch_flags(config.read_text(), options)
        # submitit must know how many nodes' results to wait for.
        nodes, tasks = (int(flags.pop(name, 1)) for name in ("nodes", "ntasks-per-node"))
    except (ValueError, OSError) as e:
        print(f"slurm.py: {e}", file=sys.stderr)
        return 1
    jobs = [Job(job.log, _without_srun(job.command)) for job in jobs]

    executor = submitit.SlurmExecutor(folder=jobs[0].log.parent / "slurm")
    name = str(flags.pop("job-name", jobs[0].log.stem))
    # Since Slurm 22.05 srun gives a task one core unless told otherwise.
    cores = flags.get("cpus-per-task")
    executor.update_parameters(
        nodes=nodes,
        ntasks_per_node=tasks,
        srun_args=[] if cores is None else [f"--cpus-per-task={cores}"],
        job_name=name,
        stderr_to_stdout=True,
        array_parallelism=int(options.get("max_jobs_run", 256)),
        # submitit ends jobs after five minutes unless told otherwise
        additional_parameters={"time": "1-00:00:00", **flags},
    )
    submitted = executor.submit_array([Task(job) for job in jobs])

    def on_signal(number, frame):
        for job in submitted:
            job.cancel(check=False)
        sys.exit(1)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    _wait(submitted, jobs)
    statuses = [_status(s, job) for s, job in zip(submitted, jobs)]  # noqa: B905 (3.10)
    return report_failures("slurm.py", jobs, statuses)


def _without_srun(command: list[str]) -> list[str]:
    if command[0] != "srun":
        return command
    rest = command[1:]
    while rest and rest[0].startswith("-"):
        rest = rest[1:]
    return rest


def _wait(submitted: list, jobs: list[Job]) -> None:
    begin = noted = time.monotonic()
    while not all(job.done() for job in submitted):
        time.sleep(1)
        if time.monotonic() - noted >= _NOTE_EVERY:
            noted = time.monotonic()
            states = [job.state for job in submitted]
            line = next((last_line(j.log) for j, s in zip(jobs, states) if s == "RUNNING"), "")  # noqa: B905 (3.10)
            counts = ", ".join(f"{states.count(s)} {s}" for s in sorted(set(states)))
            print(f"  {counts}, {noted - begin:.0f} s: {line}", file=sys.stderr, flush=True)


def _status(submitted, job: Job) -> int:
    """Return the worst exit status of a job's nodes; 1 where a node gave none."""
    error = submitted.exception()
    if error is not None:
        print(f"slurm.py: job {submitted.job_id}: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    statuses = submitted.results()
    for node, status in enumerate(statuses):
        if status and node:
            log = log_of_node(job.log, node)
            print(f"slurm.py: node {node}: status {status}, log {log}", file=sys.stderr)
    return max(abs(status) for status in statuses)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
