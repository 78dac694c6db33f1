"""Many jobs and many utterances."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from espnet_smop.fileio.table import read_table
from espnet_smop.tasks.avsr import AVSRTask

ROOT = Path(__file__).resolve().parents[2]
JOBS = ROOT / "egs2/TEMPLATE/avsr_smop1/scripts/jobs/local.py"


def test_two_hundred_jobs_eight_at_a_time_lose_no_line(tmp_path):
    command = [sys.executable, str(JOBS), "--max_jobs_run", "8", "JOB=1:200"]
    script = 'for k in 1 2 3 4 5; do echo "line $k of $0"; done; echo "error of $0" >&2'
    done = subprocess.run([*command, str(tmp_path / "x.JOB.log"), "sh", "-c", script, "JOB"])
    assert done.returncode == 0
    for job in range(1, 201):
        lines = (tmp_path / f"x.{job}.log").read_text().splitlines()
        wanted = {f"line {k} of {job}" for k in range(1, 6)} | {f"error of {job}"}
        assert wanted <= set(lines), job


def decode(model_args, dump_dir, directory, utterances):
    """Decode so many utterances in one process; return its memory in MiB after each batch."""
    args = model_args()
    model = AVSRTask.build_model(args)
    (directory / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    torch.save(model.state_dict(), directory / "model.pth")
    words = ["--avsr_train_config", f"{directory}/config.yaml", "--batch_size", "10"]
    words += ["--avsr_model_file", f"{directory}/model.pth", "--output_dir", f"{directory}/out"]
    for data in ("wav.scp,speech,sound", "video.scp,video,video"):
        name = data.split(",")[0]
        paths = list(read_table(dump_dir / name).values())
        lines = [f"u{i:05d} {paths[i % len(paths)]}\n" for i in range(utterances)]
        (directory / name).write_text("".join(lines))
        words += ["--data_path_and_name_and_type", f"{directory}/{data}"]
    code = (
        "import logging, os, re, sys\n"
        "from espnet_smop.bin.avsr_inference import main\n"
        "class Look(logging.Handler):\n"
        "    def emit(self, record):\n"
        "        found = re.match(r'(\\d+) of \\d+ utterances', record.getMessage())\n"
        "        if found:\n"
        "            pages = int(open('/proc/self/statm').read().split()[1])\n"
        "            mib = pages * os.sysconf('SC_PAGE_SIZE') / 2**20\n"
        "            print('MEMORY', found[1], mib, flush=True)\n"
        "logging.getLogger().addHandler(Look())\n"
        "logging.getLogger().setLevel('INFO')\n"
        "main(sys.argv[1:])\n"
    )
    words += ["--beam_size", "2", "--max_new_tokens", "5", "--num_workers", "1"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(read_table(directory / "out/1best_recog/text")) == utterances
    return {int(n): float(m) for n, m in re.findall(r"MEMORY (\d+) ([\d.]+)", done.stdout)}


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_memory_stays_flat(model_args, dump_dir, tmp_path):
    """SMOP_DECODE_UTTERANCES in one process (default 5000): after 500, at most 5 % more."""
    count = int(os.environ.get("SMOP_DECODE_UTTERANCES", "5000"))
    memory = decode(model_args, dump_dir, tmp_path, count)
    later = [mib for done, mib in memory.items() if done >= 500]
    print(f"{memory[500]:.0f} MiB after 500 utterances, at most {max(later):.0f} after {count}")
    assert max(later) <= 1.05 * memory[500]
