"""The local job runner, by Kaldi's contract."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

JOBS = Path(__file__).resolve().parents[2] / "egs2/TEMPLATE/avsr_smop1/scripts/jobs"
LOCAL = JOBS / "local.py"


def run(*arguments, **kwargs):
    return subprocess.run(
        [sys.executable, LOCAL, *map(str, arguments)], capture_output=True, text=True, **kwargs
    )


def test_arguments_reach_the_command_as_they_are(tmp_path):
    odd = ["a b", "'", '"', "$HOME", "*", ";", "JOBS", "xJOB", "JOB.scp", "out.JOB"]
    log = tmp_path / "with space" / "x.JOB.log"
    code = "import sys; print(sys.argv[1:])"
    done = run("--mem", "4G", "JOB=2:3", log, sys.executable, "-c", code, *odd)
    assert done.returncode == 0, done.stderr
    for job in "23":
        lines = (log.parent / f"x.{job}.log").read_text().splitlines()
        assert lines[-2] == str([*odd[:-2], f"{job}.scp", f"out.{job}"])
        assert lines[0].startswith("# ")
        assert "status 0" in lines[-1]


def test_two_hundred_jobs(tmp_path):
    done = run("JOB=1:200", tmp_path / "JOB.log", "sh", "-c", "exit 0")
    assert done.returncode == 0
    assert len(list(tmp_path.glob("*.log"))) == 200


def test_a_failing_job_is_named_with_its_log(tmp_path):
    command = ["sh", "-c", "echo told why; exit $(($0 == 2 ? 3 : 0))", "JOB"]
    done = run("JOB=1:3", tmp_path / "x.JOB.log", *command)
    assert done.returncode == 1
    assert f"status 3, log {tmp_path}/x.2.log" in done.stderr
    assert "told why" in done.stderr
    assert "1 of 3 jobs failed" in done.stderr


def test_a_command_that_does_not_exist(tmp_path):
    done = run(tmp_path / "x.log", "no-such-command")
    assert done.returncode == 1
    assert "cannot be started" in done.stderr


def test_max_jobs_run_limits_how_many_run_at_once(tmp_path):
    code = (
        "import os, sys, time, pathlib; d = pathlib.Path(sys.argv[1]); me = d / str(os.getpid());"
        "me.touch(); time.sleep(0.2); print('SEEN', len(list(d.iterdir()))); me.unlink()"
    )
    (tmp_path / "alive").mkdir()
    done = run("--max_jobs_run", 2, "JOB=1:6", tmp_path / "JOB.log",
               sys.executable, "-c", code, tmp_path / "alive")  # fmt: skip
    assert done.returncode == 0
    logs = [p.read_text() for p in tmp_path.glob("*.log")]
    seen = [int(log.split("SEEN ")[1].split()[0]) for log in logs]
    assert max(seen) == 2


def test_gpus_are_shared_out_among_jobs(tmp_path):
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "4,7"}
    command = ["sh", "-c", "sleep 0.2; echo GPU $CUDA_VISIBLE_DEVICES"]
    assert run("--gpu", 1, "JOB=1:4", tmp_path / "JOB.log", *command, env=env).returncode == 0
    used = [p.read_text().splitlines()[-2] for p in sorted(tmp_path.glob("*.log"))]
    assert set(used) == {"GPU 4", "GPU 7"}
    # A single job keeps all of them.
    assert run("--gpu", 2, tmp_path / "one.log", *command, env=env).returncode == 0
    assert "GPU 4,7" in (tmp_path / "one.log").read_text()


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


def start(tmp_path, **env):
    pid_file = tmp_path / "pid"
    command = ["sh", "-c", f"echo $$ > '{pid_file}'; exec sleep 60"]
    runner = subprocess.Popen(
        [sys.executable, LOCAL, str(tmp_path / "x.log"), *command],
        env={**os.environ, **env}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: pid_file.exists() and pid_file.read_text().strip())
    return runner, int(pid_file.read_text())


def test_jobs_end_with_the_runner(tmp_path):
    for number in (signal.SIGTERM, signal.SIGKILL):
        runner, job = start(tmp_path)
        assert is_running(job)
        runner.send_signal(number)
        assert runner.wait(10) != 0
        wait_for(lambda job=job: not is_running(job))
        (tmp_path / "pid").unlink()


def test_jobs_end_when_the_driver_was_killed(tmp_path):
    driver = subprocess.Popen(["sleep", "60"])
    runner, job = start(tmp_path, AVSR_SMOP_DRIVER_PIDS=f" {driver.pid}")
    driver.kill()
    driver.wait()
    assert runner.wait(10) != 0
    wait_for(lambda: not is_running(job))


def test_wrong_calls_are_explained(tmp_path):
    assert "--gpu has no value" in run("--gpu").stderr
    assert "LOG COMMAND" in run(tmp_path / "x.log").stderr
    assert "must be part of the log's name" in run("JOB=1:2", tmp_path / "x.log", "true").stderr
    assert "ascending" in run("JOB=2:1", tmp_path / "JOB.log", "true").stderr
