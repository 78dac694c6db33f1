"""Kaldi's contract for job back ends: ``CMD [options] [JOB=1:n] LOG COMMAND…``.

Read by ``local.py`` and ``slurm.py``. Commands are lists of arguments and never pass through a
shell, so names with spaces or quotes survive. Standard library only: any Python 3.8 runs it.
"""

from __future__ import annotations

import datetime
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Job(NamedTuple):
    """One command and the file that its output goes to."""

    log: Path
    command: list[str]


class Request(NamedTuple):
    """What a command line asks for."""

    options: dict[str, str]
    jobs: list[Job]


def parse(arguments: list[str]) -> Request:
    """Parse a back end's command line.

    ``JOB=first:last`` (any name) makes an array: in LOG and COMMAND the name is replaced by the
    job's number wherever it is not next to a letter or digit.
    The last value of a repeated option counts; for ``--num_threads``, the largest.

    Raises:
        ValueError: the command line does not follow the contract.
    """
    options = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        if len(rest) < 2:
            raise ValueError(f"option {rest[0]} has no value")
        option, value = rest[0].lstrip("-").replace("-", "_"), rest[1]
        if option == "num_threads" and option in options:
            # For several nodes ESPnet's launcher adds its own count, one per GPU, to the one that
            # the recipe asked for and will start.
            value = str(max(int(value), int(options[option])))
        options[option] = value
        rest = rest[2:]
    name, numbers = None, range(1, 2)
    if rest:
        array = re.fullmatch(r"([A-Za-z_]\w*)=(\d+)(?::(\d+))?", rest[0])
        if array:
            name = array[1]
            numbers = range(int(array[2]), int(array[3] or array[2]) + 1)
            if not numbers or numbers[0] < 1:
                raise ValueError(f"{rest[0]} is not an ascending range from 1 or more")
            rest = rest[1:]
    if len(rest) < 2:
        raise ValueError("expected [--option value]… [JOB=1:n] LOG COMMAND [ARGUMENT]…")
    if name and len(numbers) > 1 and _substitute(name, numbers[0], rest[0]) == rest[0]:
        raise ValueError(f"{name} must be part of the log's name, else all jobs share {rest[0]}")
    jobs = []
    for number in numbers:
        log, *command = [_substitute(name, number, x) if name else x for x in rest]
        jobs.append(Job(Path(log), command))
    return Request(options, jobs)


def _substitute(name: str, number: int, text: str) -> str:
    return re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", str(number), text)


def run_job(
    job: Job,
    env: dict[str, str] | None = None,
    on_start: Callable[[subprocess.Popen], None] = lambda process: None,
    **popen,
) -> int:
    """Run a job to its end, with a header and a footer in its log; return its exit status."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with open(job.log, "wb", buffering=0) as log:

        def note(text: str) -> None:
            log.write(f"# {text}\n".encode())

        note(shlex.join(job.command))
        note(f"started at {_now()} on {socket.gethostname()}")
        try:
            process = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                **popen,
            )
        except OSError as e:
            note(f"cannot be started: {e}")
            status = 127
        else:
            on_start(process)
            status = process.wait()
        seconds = time.monotonic() - start
        note(f"ended at {_now()} with status {status} after {seconds:.1f} s")
    return status


def _now() -> str:
    return datetime.datetime.now().isoformat(sep=" ", timespec="seconds")


def last_line(log: Path) -> str:
    """Return a log's last progress line, at most 120 characters of it.

    That is tqdm's last bar or the last line that ends in "left" in the log's last 16 KiB, otherwise
    the last line. The loggers' prefix is removed.
    """
    try:
        with open(log, "rb") as f:
            f.seek(0, 2)
            f.seek(max(0, f.tell() - 16384))
            text = f.read().decode(errors="replace")
    except OSError:
        return ""
    # A progress bar rewrites its line: what follows the last \r is visible.
    lines = [line.strip() for line in re.split(r"[\r\n]", text)]
    lines = [line for line in lines if line]
    progress = [line for line in lines if "%|" in line or line.endswith(" left")]
    line = (progress or lines or [""])[-1]
    return re.sub(r"^(\[[^]]+\] )?[-\d]+ [:,\d]+ (\([\w:]+\) )?([A-Z]+: )?", "", line)[:120]


def report_failures(program: str, jobs: list[Job], statuses: list[int]) -> int:
    """Print the failed jobs and their logs; return the exit status of the whole."""
    failed: list[tuple[Job, int]] = [(j, s) for j, s in zip(jobs, statuses) if s]  # noqa: B905 (3.10)
    if not failed:
        return 0
    print(f"{program}: {len(failed)} of {len(jobs)} jobs failed", file=sys.stderr)
    for job, status in failed[:5]:
        print(f"{program}: status {status}, log {job.log}", file=sys.stderr)
    log = failed[0][0].log
    try:
        tail = log.read_text(errors="replace").splitlines()[-20:]
    except OSError:
        tail = []
    print(f"{program}: the end of {log}:", *tail, sep="\n  ", file=sys.stderr)
    return 1
