import subprocess
from pathlib import Path

import pytest

UTILS = Path(__file__).resolve().parents[2] / "egs2/TEMPLATE/avsr_smop1/scripts/utils"
ON_GPU = "--gpu_inference true --inference_nj 1"


@pytest.mark.parametrize(
    ("ngpu", "gpus", "told"),
    [
        ("auto", 2, f"--ngpu 1 {ON_GPU}"),
        ("auto", 0, "--ngpu 0"),
        ("0", 2, "--ngpu 0"),
        ("2", 2, f"--ngpu 2 {ON_GPU}"),
    ],
)
def test_decoding_is_where_training_is(tmp_path, ngpu, gpus, told):
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\nexit {int(gpus == 0)}\n")
    smi.chmod(0o755)
    script = f'set -euo pipefail; ngpu={ngpu}; . "$0"; echo "${{gpu_args[*]}}"'
    done = subprocess.run(
        ["bash", "-c", script, UTILS / "gpu_args.sh"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == told
