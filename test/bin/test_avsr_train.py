import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from espnet_smop.bin.avsr_train import main
from espnet_smop.tasks.avsr import AVSRTask
from espnet_smop.view_steps import Views

pytestmark = pytest.mark.slow


@pytest.fixture
def command(train_command):
    """Return a function that makes a training command; keywords override the config."""

    def make(output_dir, **changes):
        settings = {
            "max_epoch": 3,
            "scheduler": "warmuplr",
            "scheduler_conf": {"warmup_steps": 5},
            "keep_nbest_models": 3,
            "unused_parameters": True,
        }
        words = train_command(output_dir, **{**settings, **changes})
        return [sys.executable, "-m", "espnet_smop.bin.avsr_train", *words, "--resume", "true"]

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
    run_two(command(tmp_path / "two", **changes), tmp_path / "rendezvous")
    one, two = (load(tmp_path / d / "2epoch.pth") for d in ("one", "two"))
    for key, value in one.items():
        assert torch.allclose(value, two[key], atol=2e-4), key


def run_two(words, rendezvous):
    """Run a training as two processes."""
    ranks = []
    for rank in range(2):
        two = [*words, "--ngpu", "0", "--dist_backend", "gloo", "--dist_world_size", "2"]
        two += ["--dist_rank", str(rank), "--dist_init_method", f"file://{rendezvous}"]
        ranks.append(subprocess.Popen(two, env={**os.environ, "OMP_NUM_THREADS": "1"}))
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]


def test_two_processes_train_all_tasks_at_sampled_rates_and_resume(command, tmp_path):
    conf = {
        "model_conf": {"tasks": {"asr": 1.0, "vsr": 1.5, "avsr": 1.0}, "rate_pairs": "sample"},
        "projector_conf": {
            "num_experts": 3, "hidden_size": 16, "per_rate": True,
            "downsample": {"mode": "avgpool", "audio": [4, 16], "video": [2, 5]},
        },
        "batch_type": "tokens", "batch_bins": 800, "unused_parameters": False,
        "best_model_criterion": [["valid", "acc_vsr_v5", "max"], ["valid", "acc", "max"]],
        "scheduler": None,
    }  # fmt: skip
    model = vars(AVSRTask.get_parser().parse_args(command(tmp_path / "x", **conf)[3:]))
    lora = {"r": 2, "per": "task", "shared": True}
    conf["decoder_conf"] = {**model["decoder_conf"], "lora": lora}
    run_two(command(tmp_path / "whole", max_epoch=2, **conf), tmp_path / "first")
    run_two(command(tmp_path / "parts", max_epoch=1, **conf), tmp_path / "second")
    resumed = command(tmp_path / "parts", max_epoch=2, **conf)
    run_two([*resumed, "--allow_changed_config", "true"], tmp_path / "third")
    whole, parts = (load(tmp_path / d / "2epoch.pth") for d in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    # Each epoch changed the weights of the rates that were drawn in it, and of all tasks.
    before = load(tmp_path / "whole" / "1epoch.pth")
    first, last = int(before["views.step"]), int(whole["views.step"])
    assert last == 2 * first >= 4
    rates = {m: conf["projector_conf"]["downsample"][m] for m in ("audio", "video")}
    views = Views(conf["model_conf"]["tasks"], rates)
    drawn = [views.next_step() for _ in range(last)][first:]
    used = {f"{m[0]}{r}" for step in drawn for view in step for m, r in view.rates.items()}
    used |= {"asr", "vsr", "avsr", "shared"}
    parts = used | {"a4", "a16", "v2", "v5"}
    assert used == {
        part
        for part in parts
        if any(f".{part}." in k and not torch.equal(whole[k], before[k]) for k in whole)
    }
    assert (tmp_path / "whole" / "valid.acc_vsr_v5.best.pth").exists()


@pytest.mark.parametrize("ngpu", ["1", "8"])
def test_without_gpu_it_says_so_at_once(command, tmp_path, ngpu):
    done = subprocess.run(
        [*command(tmp_path / "exp"), "--ngpu", ngpu],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert last.startswith(f"avsr_train: --ngpu {ngpu}, but only 0 GPUs are visible. Check")
    assert not (tmp_path / "exp").exists()


def test_several_gpus_are_several_processes(train_command, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(AVSRTask, "main", lambda args: started.append(args))
    for gpus in (0, 1, 2):
        main([*train_command(tmp_path / "exp"), "--ngpu", str(gpus)])
    assert [args.multiprocessing_distributed for args in started] == [False, False, True]


def test_options_of_the_llm_and_of_modalities_train_together_and_resume(
    command, model_args, tmp_path
):
    conf = {
        **model_args().decoder_conf,
        "gradient_checkpointing": True,
        "sink_loss_weight": 10.0,
        "mome": {"num_experts": 5, "top_k": 2, "bottleneck": 3, "place": "mhsa"},
    }
    changes = {
        "decoder_conf": conf,
        "model_conf": {"modality_dropout": {"audio": 0.3, "video": 0.3}},
        "best_model_criterion": [["valid", "loss_mome_balance", "min"]],
        "keep_nbest_models": 1,
    }
    run(command(tmp_path / "exp", **changes, max_epoch=1))
    run(command(tmp_path / "exp", **changes, max_epoch=2, allow_changed_config=True))
    state = load(tmp_path / "exp" / "2epoch.pth")
    added = {name for name in state if name.startswith("decoder.mome.")}
    # Of each of two layers: a router, and four tensors of its experts and of the shared one.
    assert len(added) == 2 * (1 + 4 + 4)
    assert not any("base_layer" in name or "embed_tokens" in name for name in state)
    assert all(state[name].abs().sum() > 0 for name in added)
