"""``batch_type: tokens`` through ESPnet's own iterator, dataset and distributed training."""

import os
import re
import subprocess
import sys

import pytest
import torch
from espnet2.train.distributed_utils import DistributedOption

from espnet_smop.decoder.tokenizer import TextEncoder
from espnet_smop.tasks.avsr import AVSRTask


@pytest.fixture
def command(train_command):
    """Return a function that makes a training's arguments; keywords override the config."""

    def make(**changes):
        settings = {
            "batch_type": "tokens",
            "batch_bins": 400,
            "batch_limits": {"frames": 120},
            "max_epoch": 1,
        }
        return train_command("exp", **{**settings, **changes})

    return make


def batches_of(words):
    args = AVSRTask.get_parser().parse_args(words)
    args.ngpu = 0
    model = AVSRTask.build_model(args)
    option = DistributedOption(distributed=False)
    factory = AVSRTask.build_iter_factory(args, option, mode="train")
    return model, list(factory.build_iter(epoch=1))


def test_what_the_llm_gets_stays_below_the_limits(command):
    model, batches = batches_of(command())
    assert sum(len(keys) for keys, _ in batches) == 12 and len(batches) > 2
    shapes = []

    def note(module, args, kwargs):
        shapes.append(kwargs["inputs_embeds"].shape[:2].numel())

    model.decoder.llm.base_model.register_forward_pre_hook(note, with_kwargs=True)
    for _, batch in batches:
        with torch.no_grad():
            model(**batch)
        assert batch["video"].shape[:2].numel() <= 120
    assert max(shapes) <= 400
    # Not far below it either: a batch ends where the next utterance would not fit.
    assert max(shapes) > 250 or max(b["video"].shape[:2].numel() for _, b in batches) > 80


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_bins": 30}, r"has \d+ tokens, but a batch takes 30 .*raise batch_bins"),
        ({"batch_limits": {"frame": 1}}, "unknown key 'frame'. Did you mean 'frames'?"),
        ({"use_preprocessor": False}, "use_preprocessor: true"),
    ],
)
def test_what_cannot_be_batched_is_said(command, changes, message):
    with pytest.raises(ValueError, match=message):
        batches_of(command(**changes))


@pytest.mark.slow
def test_two_processes_make_the_same_number_of_steps(command, tmp_path):
    words = [sys.executable, "-m", "espnet_smop.bin.avsr_train", *command()]
    words += ["--ngpu", "0", "--dist_backend", "gloo", "--dist_world_size", "2", "--log_interval"]
    words += ["1", "--dist_init_method", f"file://{tmp_path}/rendezvous"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [*words, "--dist_rank", str(rank)], env=env, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    logs = [process.communicate(timeout=300)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], logs[0][-3000:]
    (planned,) = re.findall(r"\[train\] Batch sampler: .*N-batch=(\d+).*world_size=2", logs[0])
    steps = torch.load(tmp_path / "exp" / "checkpoint.pth", weights_only=True)["reporter"]
    assert steps["stats"][1]["train"]["total_count"] == int(planned)


def test_texts_are_counted_as_they_are_tokenised(make_llm):
    encoder = TextEncoder(make_llm("llama3"))
    texts = ["place blue at f two now", "", "lay green"] * 700
    assert encoder.count(texts) == [len(encoder(text)) for text in texts]
