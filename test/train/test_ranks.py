import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from espnet2.iterators.sequence_iter_factory import SequenceIterFactory
from torch.multiprocessing import ProcessExitedException

from espnet_smop.train.ranks import (
    RankError,
    RankIterFactory,
    connection_errors,
    errors_of_ranks,
)

START = """
import multiprocessing, os, time
from espnet2.tasks.abs_task import AbsTask
from espnet_smop.tasks.avsr import AVSRTask

def train(cls, args):
    print(os.getpid(), flush=True)
    time.sleep(60)

AbsTask.main_worker = classmethod(train)
args = AVSRTask.get_parser().parse_args(["--dry_run", "true", "--output_dir", "unused"])
args.distributed, args.multiprocessing_distributed = False, True
rank = multiprocessing.get_context("fork").Process(target=AVSRTask.main_worker, args=(args,))
rank.start()
rank.join()
"""


SPAWN = """
import sys
import torch
import torch.distributed as dist
from espnet_smop.base_model import locate
from espnet_smop.command import run
from espnet_smop.train.ranks import connection_errors, errors_of_ranks, rank_errors

def train(rank, store):
    with rank_errors(rank), connection_errors():
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
        dist.all_reduce(torch.zeros(1))
        if rank == 1:
            locate("./absent")
        dist.all_reduce(torch.zeros(1))

def main(words):
    with errors_of_ranks():
        torch.multiprocessing.spawn(train, (words[0],), nprocs=2)

if __name__ == "__main__":
    run(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_an_error_that_one_process_meets_is_one_line(tmp_path, debug):
    script = tmp_path / "train.py"
    script.write_text(SPAWN)
    done = subprocess.run(
        [sys.executable, script, tmp_path / "store", *debug],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("avsr_train")]
    assert len(said) == 1, done.stderr
    assert said[0].startswith("avsr_train: process 1: base model './absent' is not a directory")
    assert ("Traceback" in done.stderr) == bool(debug)


def test_a_lost_connection_is_named():
    lost = "[pair.cc:547] Connection closed by peer [127.0.0.1]:4711"
    expected = "another process of the training has ended"
    with pytest.raises(RankError, match=expected), connection_errors():
        raise RuntimeError(lost)
    with pytest.raises(RuntimeError, match="shapes differ"), connection_errors():
        raise RuntimeError("shapes differ")


def test_a_process_ended_by_a_signal_is_named():
    killed = ProcessExitedException(
        "x", error_index=1, error_pid=1, exit_code=-9, signal_name="SIGKILL"
    )
    expected = "process 1 of the training was killed by SIGKILL"
    with pytest.raises(RankError, match=expected), errors_of_ranks():
        raise killed


def runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="Linux tells its processes")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_rank_ends_with_the_process_that_started_it(number):
    parent = subprocess.Popen([sys.executable, "-c", START], stdout=subprocess.PIPE, text=True)
    rank = int(parent.stdout.readline())
    assert runs(rank)
    parent.send_signal(number)
    parent.wait()
    deadline = time.monotonic() + 20
    while runs(rank):
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Draws:
    """A data set that answers with what its worker draws."""

    def __getitem__(self, index):
        return index, np.random.randint(2**31)


def test_ranks_augment_differently_in_the_same_order():
    def epoch(factory_class, **kwargs):
        settings = {"dataset": Draws(), "batches": [(i, i + 1) for i in range(6)], "seed": 5}
        factory = factory_class(
            **settings, **kwargs, shuffle=True, num_workers=1, collate_fn=lambda x: x
        )
        indices, drawn = zip(
            *[pair for batch in factory.build_iter(3) for pair in batch], strict=True
        )
        return indices, drawn

    plain = epoch(SequenceIterFactory)
    ours = [epoch(RankIterFactory, rank=rank) for rank in (0, 1, 2)]
    assert ours[0] == plain == epoch(RankIterFactory, rank=0)
    assert {indices for indices, _ in ours} == {plain[0]}
    assert len({number for _, drawn in ours for number in drawn}) == 36
