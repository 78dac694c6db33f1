"""local/run_paper.sh: what it asks run.sh to do, and the dry run of everything."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = """#!/usr/bin/env bash
if [ "${1:-}" = --help ]; then exec ../../TEMPLATE/avsr_smop1/avsr_smop.sh --help; fi
set -euo pipefail
echo "$*" >> run_calls
exp="" snrs="" tag="" views=- skip_train=false
while [ $# -gt 0 ]; do
    case "$1" in
        --avsr_exp) exp="$2" ;;
        --snrs) snrs="$2" ;;
        --views) views="$2" ;;
        --inference_tag) tag="$2" ;;
        --skip_train) skip_train="$2" ;;
    esac
    shift
done
if [ -z "${exp}" ]; then exit 0; fi
case "${exp}" in *"$(cat failing 2> /dev/null || echo none)"*) exit 1 ;; esac
mkdir -p "${exp}"
echo model > "${exp}/valid.acc.ave.pth"
for view in ${views}; do
    rates="${view#*:}"
    case "${view}" in
        -) suffix="" ;;
        asr:*) suffix="_asr_a${rates}" ;;
        vsr:*) suffix="_vsr_v${rates}" ;;
        avsr:*) suffix="_avsr_a${rates%,*}_v${rates#*,}" ;;
    esac
    for snr in ${snrs}; do
        dir="${exp}/${tag}${suffix}/test"
        if [ "${snr}" != clean ]; then dir+="_babble_snr${snr}"; fi
        mkdir -p "${dir}/score_wer"
        touch "${dir}/score_wer/result.txt"
        echo "a b c d (s1-u1)" > "${dir}/score_wer/ref.trn"
        echo "a b c x (s1-u1)" > "${dir}/score_wer/hyp.trn"
    done
done
"""


@pytest.fixture
def recipe(tmp_path):
    shutil.copytree(
        ROOT / "egs2", tmp_path / "a clone/egs2", symlinks=True,
        ignore=shutil.ignore_patterns("data", "dump", "exp", "downloads"),
    )  # fmt: skip
    directory = tmp_path / "a clone/egs2/lrs3/avsr_smop1"
    (directory / "run.sh").write_text(RUN)
    return directory


def run(recipe, *arguments, timeout=600):
    env = {**os.environ, "ESPNET_SMOP_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["local/run_paper.sh", *arguments],
        cwd=recipe, env=env, capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip


def calls(recipe):
    path = recipe / "run_calls"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.slow  # starts Python several times
def test_runs_what_is_not_done_and_prints_the_table(recipe):
    # Table 2 needs six systems; one of them fails at first.
    (recipe / "failing").write_text("avsr_mmfuser")
    chosen = ["--table", "2", "--machine", "8x80gb", "--num_nodes", "2"]
    done = run(recipe, *chosen)
    assert done.returncode == 1, done.stdout
    assert "failed: avsr_mmfuser_whisper_base_llama3.2_3b" in done.stderr
    first, *others = calls(recipe)
    assert first.startswith("--stop_stage 5 ") and "--num_nodes 2" in first
    names = re.findall(r"--avsr_exp exp/avsr_(\S+)", "\n".join(others))
    assert len(names) == len(set(names)) == 6
    assert all("--ngpu 8" in call and "--snrs 7.5 5 2.5 0 -2.5" in call for call in others)
    assert "Table 2" in done.stdout
    # One word of four is wrong, whichever set is drawn.
    assert done.stdout.count("25.00 [25.00, 25.00]") == 5 * 5
    assert "95.1" in done.stdout
    config = recipe / "exp/paper/conf/avsr_dci_whisper_base_llama3.2_3b.yaml"
    assert config.is_file() and f"--avsr_config {config.relative_to(recipe)}" in "".join(others)

    (recipe / "failing").unlink()
    for name in ("train", "valid", "test"):
        (recipe / "dump/raw" / name).mkdir(parents=True)
        (recipe / "dump/raw" / name / "text").write_text("u1 a b c d\n")
    before = len(calls(recipe))
    done = run(recipe, *chosen)
    assert done.returncode == 0, done.stderr
    (again,) = calls(recipe)[before:]
    assert "avsr_mmfuser" in again and "--skip_train false" in again
    assert done.stdout.count("is trained and scored") == 5

    # Table 1 takes the trained systems and decodes them without noise.
    done = run(recipe, "--table", "1", "--only", "dci_whisper_base_llama3.2_3b")
    assert done.returncode == 0, done.stderr
    (clean,) = calls(recipe)[before + 1 :]
    assert "--skip_train true" in clean and "--snrs clean" in clean


@pytest.mark.slow  # starts Python several times
def test_a_model_of_several_views_is_trained_once(recipe):
    chosen = ["--paper", "omni_avsr", "--table", "1", "--table", "noise", "--only", "lora_st"]
    done = run(recipe, *chosen)
    assert done.returncode == 0, done.stderr
    first, clean, noisy = calls(recipe)
    assert first.startswith("--stop_stage 5 ")
    assert "--skip_train false" in clean and "--snrs clean --views asr:4 asr:16 vsr:2" in clean
    assert "--skip_train true" in noisy
    assert "--snrs clean 5 2.5 0 -2.5 -5 --views avsr:4,2" in noisy
    assert done.stdout.count("25.00 [25.00, 25.00]") == 8 + 5
    assert run(recipe, *chosen).returncode == 0
    assert len(calls(recipe)) == 3 + 1  # the data of this stand-in are never there


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--table", "1", "--steps_per_epoch", "few"],
            "--steps_per_epoch must be a number above 0",
        ),
        ([], "give --table or --figure, or --dry_run"),
        (["--table", "3"], "conf/paper.yaml has no table3, only table1 table2 figure3_asr"),
        (["--paper", "mome", "--figure", "3"], "conf/paper_mome.yaml has no figure3_asr"),
        (["--figure"], "option --figure needs a value"),
        (["--dry_run", "yes"], "unexpected argument 'yes'"),
        (["--tabel", "1"], "there is no option --tabel; did you mean --table?"),
        (["--table", "1", "--ngpus", "1"], "there is no option --ngpus; did you mean --ngpu?"),
        (["--table", "1", "--throughput", "20"], "--throughput is for --dry_run"),
        (["--table", "1", "--noise", "none.wav"], "--noise none.wav does not exist"),
        (["--dry_run", "--stage", "6"], "--stage is for run.sh"),
        (["--table", "1", "--paper", "conf/papers.yaml"], "conf/papers.yaml does not exist"),
        (["--table", "1", "--paper", "omni"], "give llama_smop, omni_avsr, llama_mtsk, mome or"),
    ],
)
def test_wrong_options_are_explained(recipe, arguments, message):
    done = run(recipe, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert calls(recipe) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_dry_run_of_everything(recipe):
    options = ["--dry_run", "true", "--verbose", "--throughput", "llama3.2_1b=50 20"]
    done = run(recipe, *options, timeout=3500)
    assert done.returncode == 0, done.stderr[-3000:]
    systems = re.findall(r"^((?:asr|vsr|avsr)_\S+) +[\d.]+ ", done.stdout, flags=re.MULTILINE)
    count = len(systems)
    # Table 1; Figure 3's ASR and VSR; three more sizes of pools each for ASR and VSR; published
    assert len(set(systems)) == count == 24 + 16 + 8 + 6 + 1
    assert f"{count} experiments, all configs valid" in done.stdout
    assert done.stdout.count("49,000 steps") == count
    assert done.stdout.count("8,000 frames") == count
    assert {" 87 ", " 218 "} <= set(re.findall(r" \d+ ", done.stdout))
    assert f"counting shared experiments once: {count} to train" in done.stdout
    trained = [int(x.replace(",", "")) for x in re.findall(r"  trained +([\d,]+) of", done.stdout)]
    assert len(trained) == count and min(trained) > 10e6
    assert calls(recipe) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("paper", "count"),
    # Of Omni-AVSR's table 8 + 3 + 4 + 3; of Llama-MTSK's 4 + 3; MoME's adds three places
    [("omni_avsr", 18), ("llama_mtsk", 7), ("mome", 10)],
)
def test_dry_run_of_the_papers_of_several_rates(recipe, paper, count):
    done = run(recipe, "--paper", paper, "--dry_run", "--verbose", timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{count} experiments, all configs valid" in done.stdout
    assert done.stdout.count("3,000 frames") == count
    steps = "104,000 steps" if paper == "omni_avsr" else "130,000 steps"
    assert done.stdout.count(steps) == count
