"""The Slurm back end, with an sbatch that runs the job on this machine."""

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

pytest.importorskip("submitit")

JOBS = Path(__file__).resolve().parents[2] / "egs2/TEMPLATE/avsr_smop1/scripts/jobs"

# Runs the tasks of an array one after the other; submitit writes them only when it has the id.
SBATCH = """#!/bin/bash
cp "$1" "$FAKE_DIR/submitted.sh"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
(
    for task in $(seq 0 "${last:-0}"); do
        export SLURM_JOB_ID=7 SLURM_JOB_NODELIST=here
        SLURM_JOB_NUM_NODES=$(sed -n 's/^#SBATCH --nodes=\\([0-9]*\\).*/\\1/p' "$1")
        export SLURM_JOB_NUM_NODES
        name=7
        if [ -n "$last" ]; then
            export SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task
            name=7_$task
        fi
        while [ -d "$FAKE_DIR" ] && [ -z "$(find "$FAKE_DIR" -name "${name}_submitted.pkl")" ]; do
            sleep 0.1
        done
        bash "$FAKE_DIR/submitted.sh"
    done
    touch "$FAKE_DIR/ended"
) > "$FAKE_DIR/slurm.out" 2>&1 &
echo "Submitted batch job 7"
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do
    case "$1" in --output | --error) shift 2 ;; *) shift ;; esac
done
export SLURM_NTASKS=$SLURM_JOB_NUM_NODES SLURM_STEP_NUM_NODES=$SLURM_JOB_NUM_NODES
export SLURM_STEP_NODELIST=here SLURM_LOCALID=0
for node in $(seq 0 $((SLURM_JOB_NUM_NODES - 1))); do
    SLURM_PROCID=$node SLURM_NODEID=$node "$@" &
done
wait
"""
SACCT = """#!/bin/bash
state=RUNNING
[ ! -e "$FAKE_DIR/ended" ] || state=COMPLETED
echo "JobID|State"
for k in 0 1 2 3; do echo "7_$k|$state"; done
echo "7|$state"
"""
CONFIG = """
command sbatch --account=lab -t 1:00:00
option mem=* --mem-per-cpu=$0
option max_jobs_run=*
option num_threads=* --cpus-per-task=$0
option num_nodes=* --nodes=$0 --ntasks-per-node=1
default gpu=0
option gpu=0 -p cpu
option gpu=* -p "gpu" --gres=gpu:$0  # a comment
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Put Slurm's commands on PATH; return the directory in which `submitted.sh` will be."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT), ("scancel", SACCT)):
        (bin_dir / name).write_text(text)
        (bin_dir / name).chmod(0o755)
    path = f"{bin_dir}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("FAKE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def slurm(cluster):
    config = cluster / "slurm.conf"
    config.write_text(CONFIG)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, JOBS / "slurm.pl", "--config", config, *map(str, arguments)],
            capture_output=True, text=True, cwd=cluster, timeout=120,
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


@pytest.mark.slow
def test_a_node_that_fails_is_named_with_its_log(slurm, tmp_path):
    command = ["sh", "-c", "echo node $SLURM_PROCID; exit $((3 * SLURM_PROCID))"]
    done = slurm("--num_nodes", 2, tmp_path / "exp/train.log", *command)
    assert done.returncode == 1
    assert f"node 1: status 3, log {tmp_path}/exp/train.log.node1" in done.stderr
    for node, name in enumerate(("train.log", "train.log.node1")):
        assert f"\nnode {node}\n" in (tmp_path / "exp" / name).read_text()


@pytest.fixture
def on_slurm(recipe, cluster, monkeypatch):
    """Return a recipe whose driver submits to Slurm and really starts ESPnet's launcher."""
    recipe.write("conf/slurm.conf", (JOBS.parents[1] / "conf/slurm.conf").read_text())
    recipe.write("env/real_launch", "")
    monkeypatch.setenv("cmd_backend", "local")
    assert recipe.run("--stop_stage", "10").returncode == 0
    monkeypatch.setenv("cmd_backend", "slurm")
    return recipe


def ranks_of(arguments, node, monkeypatch):
    """Return the options of the processes that ESPnet would start on a node."""
    from espnet2.tasks import abs_task

    from espnet_smop.tasks.avsr import AVSRTask

    started = []

    class Context:
        def __init__(self, *_):
            pass

        def Process(self, *, target, args, daemon):
            return types.SimpleNamespace(start=lambda: started.extend(args))

        def join(self):
            return True

    settings = {"PROCID": node, "NODEID": node, "LOCALID": 0, "NTASKS": 2, "STEP_NUM_NODES": 2}
    for name, value in (settings | {"STEP_NODELIST": "gpu[1-2]"}).items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setattr(abs_task.torch.multiprocessing, "get_context", Context)
    monkeypatch.setattr(abs_task, "ProcessContext", Context)
    # The config names no base models: only what is started matters here.
    monkeypatch.setattr("espnet_smop.tasks.avsr.settings_problems", lambda args: [])
    monkeypatch.setattr(AVSRTask, "build_skeleton", lambda args: None)
    AVSRTask.main(cmd=arguments)
    return started


@pytest.mark.slow
def test_sixteen_gpus_of_two_nodes(on_slurm, cluster, monkeypatch):
    done = on_slurm.run("--stage", "11", "--stop_stage", "11", "--num_nodes", "2", "--ngpu", "8")
    assert done.returncode == 0, done.stdout + done.stderr
    script = (cluster / "submitted.sh").read_text()
    # A process for each GPU, with four threads each
    for flag in ("nodes=2", "ntasks-per-node=1", "gres=gpu:8", "cpus-per-task=32"):
        assert f"#SBATCH --{flag}\n" in script
    assert re.search(r"^srun .*--cpus-per-task=32 ", script, flags=re.MULTILINE)
    exp = on_slurm.dir / "exp/avsr_train"
    assert (exp / "train.log").exists() and (exp / "train.log.node1").exists()

    first, second = on_slurm.calls("avsr_train")
    assert first == second
    monkeypatch.chdir(on_slurm.dir)
    ranks = [option for node in (0, 1) for option in ranks_of(first, node, monkeypatch)]
    assert [o.dist_rank for o in ranks] == list(range(16))
    assert [o.local_rank for o in ranks] == [*range(8), *range(8)]
    assert {(o.dist_world_size, o.ngpu, o.dist_backend) for o in ranks} == {(16, 1, "nccl")}
    # In the experiment's directory, which all nodes see
    (method,) = {o.dist_init_method for o in ranks}
    assert method.startswith(f"file://{exp}/.dist_init_")


@pytest.mark.parametrize("backend", ["local", "kaldi"])
def test_several_nodes_need_a_back_end_that_has_them(recipe, monkeypatch, backend):
    monkeypatch.setenv("cmd_backend", backend)
    done = recipe.run("--num_nodes", "2", "--ngpu", "8")
    assert done.returncode == 2
    assert "has one node only" in done.stderr and "cmd_backend=slurm" in done.stderr
    assert recipe.calls() == []


@pytest.mark.slow
def test_decoding_is_split_over_jobs_of_one_gpu(on_slurm, cluster):
    assert on_slurm.run("--stage", "11", "--stop_stage", "11").returncode == 0
    exp = on_slurm.dir / "exp/avsr_train"
    (exp / "config.yaml").write_text((on_slurm.dir / "conf/train.yaml").read_text())
    (exp / "valid.acc.ave.pth").write_text("model")
    (cluster / "ended").unlink()
    options = ["--stage", "12", "--stop_stage", "12", "--ngpu", "1", "--gpu_inference", "true"]
    done = on_slurm.run(*options, "--inference_nj", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    script = (cluster / "submitted.sh").read_text()
    assert "#SBATCH --array=0-2%" in script and "#SBATCH --gres=gpu:1\n" in script
    decode = exp / "decode_avsr_model_valid.acc.ave/test"
    keys = [(decode / f"logdir/keys.{k}.scp").read_text().split()[::2] for k in (1, 2, 3)]
    assert sorted(map(len, keys)) == [1, 2, 2]
    assert [line.split()[0] for line in (decode / "text").read_text().splitlines()] == sorted(
        key for part in keys for key in part
    )


@pytest.mark.slow
def test_two_nodes_train_together(train_command, cluster, tmp_path):
    """ESPnet's launcher, submitit and processes that find each other by the experiment's file."""
    words = train_command("exp", max_epoch=1, unused_parameters=True, batch_type="tokens",
                          batch_bins=400, batch_limits={})  # fmt: skip
    (tmp_path / "slurm.conf").write_text(CONFIG)
    launch = [sys.executable, "-m", "espnet2.bin.launch", "--ngpu", "0", "--num_nodes", "2"]
    launch += ["--cmd", f"{JOBS}/slurm.pl --config {tmp_path}/slurm.conf", "--log",
               f"{tmp_path}/exp/train.log", "--init_file_prefix", f"{tmp_path}/exp/.dist_init_",
               "--", sys.executable, "-m", "espnet_smop.bin.avsr_train"]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *words], env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    log = (tmp_path / "exp/train.log").read_text()
    (planned,) = re.findall(r"\[train\] Batch sampler: .*N-batch=(\d+).*world_size=2", log)
    states = torch.load(tmp_path / "exp/checkpoint.pth", weights_only=True)["reporter"]
    assert states["stats"][1]["train"]["total_count"] == int(planned)
    assert "with status 0" in (tmp_path / "exp/train.log.node1").read_text()
    assert (tmp_path / "exp/valid.acc.ave.pth").exists()


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
