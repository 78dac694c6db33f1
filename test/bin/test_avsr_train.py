import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from espnet_smop.bin.make_shapes import make_shapes

pytestmark = pytest.mark.slow


@pytest.fixture
def command(model_args, dump_dir, tmp_path):
    """Return a function that makes a training command; keywords override the config."""
    make_shapes(dump_dir, tmp_path / "stats")

    def make(output_dir, **changes):
        args = vars(model_args())
        del args["base_fingerprints"]
        config = {
            **args,
            "batch_type": "numel",
            "batch_bins": 100,
            "num_workers": 0,
            "max_epoch": 3,
            "optim": "adamw",
            "optim_conf": {"lr": 1.0e-3},
            "scheduler": "warmuplr",
            "scheduler_conf": {"warmup_steps": 5},
            "best_model_criterion": [["valid", "acc", "max"]],
            "keep_nbest_models": 3,
            "num_att_plot": 0,
            "use_matplotlib": False,
            "use_tensorboard": False,
            "unused_parameters": True,
            **changes,
        }
        path = Path(f"{output_dir}.yaml")
        path.write_text(yaml.safe_dump(config))
        words = [sys.executable, "-m", "espnet_smop.bin.avsr_train", "--config", path]
        words += ["--output_dir", output_dir, "--resume", "true"]
        for part in ("train", "valid"):
            for data in ("wav.scp,speech,sound", "video.scp,video,video", "text,text,text"):
                words += [f"--{part}_data_path_and_name_and_type", f"{dump_dir}/{data}"]
            words += [f"--{part}_shape_file", tmp_path / "stats" / "duration_shape"]
        return [str(word) for word in words]

    return make


def run(words, **env):
    subprocess.run(
        words, check=True, env={**os.environ, "OMP_NUM_THREADS": "1", **env}, timeout=300
    )


def load(path):
    return torch.load(path, weights_only=True)


def test_killed_training_resumes_to_the_same_parameters(command, tmp_path):
    run(command(tmp_path / "whole"))
    killed = command(tmp_path / "killed")
    process = subprocess.Popen(killed, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 200
    while not (tmp_path / "killed" / "1epoch.pth").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "3epoch.pth").exists()
    run(killed)
    for name in ("3epoch.pth", "valid.acc.ave.pth"):
        whole, resumed = (load(tmp_path / d / name) for d in ("whole", "killed"))
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert not list((tmp_path / "killed").glob(".part-*"))

    # n-best averaging and --init_param work on such checkpoints, too
    average = load(tmp_path / "whole" / "valid.acc.ave_3best.pth")
    epochs = [load(tmp_path / "whole" / f"{i}epoch.pth") for i in (1, 2, 3)]
    for key, value in average.items():
        assert torch.allclose(value, sum(e[key] for e in epochs) / 3, atol=1e-6)
    init = tmp_path / "whole" / "3epoch.pth"
    conf = {"lr": 1.0e-12}
    tuned = command(tmp_path / "tuned", max_epoch=1, optim_conf=conf, scheduler=None)
    run([*tuned, "--init_param", str(init)])
    start, end = load(init), load(tmp_path / "tuned" / "1epoch.pth")
    assert all(torch.allclose(start[k], end[k], atol=1e-6) for k in start)


def test_two_processes_follow_one(command, tmp_path):
    """The same global batches give the same parameters, whether or not an expert goes empty."""
    conf = {"routing": "jejr", "num_experts": 8, "top_k": 1, "hidden_size": 16}
    calm = {"preprocessor_conf": {"flip_probability": 0.0, "random_crop": False,
                                  "video_mask": None, "speech_mask": None}}  # fmt: skip
    changes = {"projector_conf": conf, "max_epoch": 2, "batch_bins": 200, **calm}
    run(command(tmp_path / "one", **changes))
    ranks = []
    for rank in range(2):
        words = command(tmp_path / "two", **changes)
        words += ["--ngpu", "0", "--dist_backend", "gloo", "--dist_world_size", "2"]
        words += ["--dist_rank", str(rank), "--dist_init_method", f"file://{tmp_path}/rendezvous"]
        ranks.append(subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"}))
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    one, two = (load(tmp_path / d / "2epoch.pth") for d in ("one", "two"))
    for key, value in one.items():
        assert torch.allclose(value, two[key], atol=2e-4), key
