"""The Slurm back end, with an sbatch that runs the job on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("submitit")

JOBS = Path(__file__).resolve().parents[2] / "egs2/TEMPLATE/avsr_smop1/scripts/jobs"

# Runs the tasks of an array one after the other; submitit writes them only when it has the id.
SBATCH = """#!/bin/bash
cp "$1" "$FAKE_DIR/submitted.sh"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
(
    for task in $(seq 0 "${last:-0}"); do
        export SLURM_JOB_ID=7 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=1 SLURM_NODEID=0
        export SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=here
        name=7
        if [ -n "$last" ]; then
            export SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task
            name=7_$task
        fi
        until compgen -G "$FAKE_DIR/*/slurm/${name}_submitted.pkl"; do
            sleep 0.1
        done
        bash "$FAKE_DIR/submitted.sh"
    done
) > "$FAKE_DIR/slurm.out" 2>&1 &
echo "Submitted batch job 7"
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do
    case "$1" in --output | --error) shift 2 ;; *) shift ;; esac
done
exec "$@"
"""
SACCT = """#!/bin/bash
echo "JobID|State"
for k in 0 1 2 3; do echo "7_$k|COMPLETED"; done
echo "7|COMPLETED"
"""
CONFIG = """
command sbatch --account=lab -t 1:00:00
option mem=* --mem-per-cpu=$0
option max_jobs_run=*
default gpu=0
option gpu=0 -p cpu
option gpu=* -p "gpu" --gres=gpu:$0  # a comment
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT), ("scancel", SACCT)):
        (bin_dir / name).write_text(text)
        (bin_dir / name).chmod(0o755)
    config = tmp_path / "slurm.conf"
    config.write_text(CONFIG)
    env = {**os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}", "FAKE_DIR": str(tmp_path)}

    def run(*arguments):
        return subprocess.run(
            [sys.executable, JOBS / "slurm.pl", "--config", config, *map(str, arguments)],
            env=env, capture_output=True, text=True, cwd=tmp_path, timeout=120,
        )  # fmt: skip

    return run


@pytest.mark.slow
def test_array_runs_and_failures_are_named(slurm, tmp_path):
    command = ["sh", "-c", "echo job $0 in $PWD; exit $(($0 == 2))", "JOB"]
    done = slurm("--mem", "4G", "--max_jobs_run", 2, "JOB=1:3", tmp_path / "l s/JOB.log", *command)
    assert done.returncode == 1
    assert f"log {tmp_path}/l s/2.log" in done.stderr
    assert "1 of 3 jobs failed" in done.stderr
    for job in (1, 2, 3):
        assert f"job {job} in {tmp_path}\n" in (tmp_path / f"l s/{job}.log").read_text()
    script = (tmp_path / "submitted.sh").read_text()
    for flag in ("account=lab", "time=1:00:00", "mem-per-cpu=4G", "partition=cpu", "array=0-2%2"):
        assert f"#SBATCH --{flag}\n" in script


@pytest.mark.slow
def test_launchers_srun_is_dropped_and_gpus_are_asked_for(slurm, tmp_path):
    done = slurm(
        "--gpu", 2, tmp_path / "exp/train.log", "srun", "--export=ALL", "echo", "--ngpu", "2"
    )
    assert done.returncode == 0, done.stderr
    assert "\n--ngpu 2\n" in (tmp_path / "exp/train.log").read_text()
    script = (tmp_path / "submitted.sh").read_text()
    assert "#SBATCH --gres=gpu:2\n" in script
    assert "#SBATCH --partition=gpu\n" in script


def test_unknown_option_is_an_error(slurm, tmp_path):
    done = slurm("--licence", "x", tmp_path / "x.log", "true")
    assert done.returncode == 1
    assert "no line 'option licence=…'" in done.stderr


def test_shipped_config_is_understood():
    config = (JOBS.parents[1] / "conf" / "slurm.conf").read_text()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from slurm import sbatch_flags;"
        "print(sbatch_flags(sys.argv[2], dict(gpu='2', num_threads='4', num_nodes='3')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, JOBS, config], capture_output=True, text=True, check=True
    )
    assert "'gres': 'gpu:2'" in done.stdout
    assert "'nodes': '3', 'ntasks-per-node': '1'" in done.stdout
