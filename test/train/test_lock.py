import errno
import os
import signal
import subprocess
import sys

import pytest

from espnet_smop.train.lock import ExperimentInUseError, experiment_lock, lock_holder, waiting_lock

HOLD = """
import os, sys, time
from espnet_smop.train.lock import experiment_lock
with experiment_lock(sys.argv[1]):
    child = os.fork()
    if not child:
        os.close(1)
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    time.sleep(60)
"""


def test_two_at_once_are_refused_and_a_kill_leaves_no_lock(tmp_path):
    directory = tmp_path / "an exp"
    command = [sys.executable, "-c", HOLD, str(directory)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    child = int(holder.stdout.readline())
    try:
        message = rf"an exp: process {holder.pid} on .* trains here"
        with pytest.raises(ExperimentInUseError, match=message), experiment_lock(directory):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        # Its child, as a data loader's worker would, still runs.
        os.kill(child, 0)
        with experiment_lock(directory):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        holder.stdout.close()


@pytest.mark.parametrize("code", ["ENOLCK", "EOPNOTSUPP", "ENOTSUP", "ENOSYS"])
def test_without_locks_in_the_file_system_it_warns_and_goes_on(tmp_path, monkeypatch, caplog, code):
    def refuse(*_):
        raise OSError(getattr(errno, code), "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    with experiment_lock(tmp_path):
        assert "has no locks" in caplog.text
    with waiting_lock(tmp_path / "a cache.lock"):
        assert "a cache.lock: the file system has no locks" in caplog.text
    assert len(caplog.messages) == 2
    assert lock_holder(tmp_path) is None


WAIT = """
import sys
from pathlib import Path
from espnet_smop.train.lock import waiting_lock
print("started", flush=True)
with waiting_lock(Path(sys.argv[1])):
    print(Path(sys.argv[2]).read_text(), flush=True)
"""


def test_the_second_waits_until_the_first_is_done(tmp_path):
    lock, made = tmp_path / "caches" / "train.lock", tmp_path / "made"
    command = [sys.executable, "-c", WAIT, str(lock), str(made)]
    with waiting_lock(lock):
        made.write_text("half")
        second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert second.stdout.readline() == "started\n"
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(timeout=1)
        made.write_text("whole")
    assert second.communicate(timeout=60)[0] == "whole\n"
