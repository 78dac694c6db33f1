#!/usr/bin/env python3
"""Run jobs as processes on this machine.

    local.py [--gpu N] [--mem M] [--num_threads N] [--max_jobs_run N] [JOB=1:n] LOG COMMAND…

Exit status 1 if any job fails; the message names its log. ``--max_jobs_run`` limits how many run
at once (default: the number of CPUs). Arrays whose jobs ask for GPUs are spread over this machine's
GPUs, as many jobs at once as the GPUs allow. ``--mem`` and other options of other back ends are
accepted and ignored. A progress line is printed every 20 s.
"""

from __future__ import annotations

import ctypes
import os
import queue
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait

from contract import Job, last_line, parse, report_failures, run_job

_NOTE_EVERY = 20.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded before any fork


def visible_gpus() -> list[str]:
    """Return the GPUs that jobs may use, as CUDA_VISIBLE_DEVICES names them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [x for x in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if x]
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    return [str(k) for k, _ in enumerate(x for x in listing.splitlines() if x.startswith("GPU"))]


class Runner:
    """Runs jobs in parallel; `stop` ends them all."""

    def __init__(self, jobs: list[Job], *, gpus_per_job: int, max_jobs_run: int):
        self.jobs = jobs
        self.statuses: list[int | None] = [None] * len(jobs)
        self.started: list[bool] = [False] * len(jobs)
        self.processes: dict[int, subprocess.Popen] = {}
        self.stopped = False
        self.shares: queue.Queue[str | None] = queue.Queue()
        # A single job may use whatever CUDA_VISIBLE_DEVICES gives it.
        gpus = visible_gpus() if gpus_per_job and len(jobs) > 1 else []
        slots = len(gpus) // gpus_per_job if gpus else 0
        for k in range(slots):
            self.shares.put(",".join(gpus[k * gpus_per_job : (k + 1) * gpus_per_job]))
        self.parallel = min(max_jobs_run, slots or max_jobs_run, len(jobs))
        for _ in range(0 if slots else self.parallel):
            self.shares.put(None)

    def run(self) -> list[int]:
        """Run all jobs; return their exit statuses."""
        drivers = os.environ.get("AVSR_SMOP_DRIVER_PIDS", "").split()
        begin = noted = time.monotonic()
        with ThreadPoolExecutor(self.parallel) as pool:
            futures = [pool.submit(self._one, k) for k in range(len(self.jobs))]
            while wait(futures, timeout=0.2).not_done:
                if not all(map(_is_alive, drivers)):
                    # The driver was killed: its successor must not find jobs that still write.
                    self.stop()
                now = time.monotonic()
                if now - noted >= _NOTE_EVERY and not self.stopped:
                    noted = now
                    self._note(now - begin)
        for future in futures:
            future.result()
        return [1 if status is None else status for status in self.statuses]

    def stop(self) -> None:
        """End running jobs and start no more."""
        self.stopped = True
        for process in list(self.processes.values()):
            if process.poll() is None:
                process.terminate()

    def _one(self, k: int) -> None:
        if self.stopped:
            return
        share = self.shares.get()
        env = dict(os.environ)
        if share is not None:
            env["CUDA_VISIBLE_DEVICES"] = share
        self.started[k] = True
        self.statuses[k] = run_job(
            self.jobs[k],
            env=env,
            on_start=lambda process: self._register(k, process),
            preexec_fn=_die_with_parent,
        )
        self.shares.put(share)

    def _register(self, k: int, process: subprocess.Popen) -> None:
        self.processes[k] = process
        if self.stopped:
            process.terminate()

    def _note(self, seconds: float) -> None:
        done = sum(status is not None for status in self.statuses)
        running = [k for k, s in enumerate(self.statuses) if s is None and self.started[k]]
        line = last_line(self.jobs[running[0]].log) if running else ""
        ahead = f"{done} of {len(self.jobs)} jobs done, " if len(self.jobs) > 1 else ""
        print(f"  {ahead}{seconds:.0f} s: {line}", file=sys.stderr, flush=True)


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _die_with_parent() -> None:
    """Ask Linux to end this process when the runner's thread ends, even by kill -9."""
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def main(arguments: list[str]) -> int:
    """Run the command line's jobs."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 1
    try:
        options, jobs = parse(arguments)
        gpus_per_job = int(options.get("gpu", 0))
        max_jobs_run = int(options.get("max_jobs_run", 0)) or os.cpu_count() or 1
    except ValueError as e:
        print(f"local.py: {e}", file=sys.stderr)
        return 1
    runner = Runner(jobs, gpus_per_job=gpus_per_job, max_jobs_run=max_jobs_run)

    def on_signal(number, frame):
        runner.stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    return report_failures("local.py", jobs, runner.run())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
