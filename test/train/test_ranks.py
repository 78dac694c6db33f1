import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from espnet2.iterators.sequence_iter_factory import SequenceIterFactory

from espnet_smop.train.ranks import RankIterFactory

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


def runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


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
