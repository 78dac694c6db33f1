"""local/run_{table1,width,omni}.sh: what they call, what they leave as it is, their tables."""

import os
import shutil
from pathlib import Path

import pytest

from espnet_smop.bin import results

pytestmark = pytest.mark.slow

MINI = Path(__file__).resolve().parents[2] / "egs2" / "mini_lrs3" / "avsr_smop1"
SYSTEMS = [
    "llama_avsr", "dci", "mmfuser", "smop4_jejr", "smop4_jedr", "smop3_dedr", "smop4v_dci_a",
    "smop4v_mmfuser_a",
]  # fmt: skip
# Makes a scored experiment out of the one beside it; fails where it is told to. Called to prepare
# data, it does that alone. With a file `meet` it waits until two experiments run at the same time.
RUN = """#!/usr/bin/env bash
set -e
if [ "${1:-}" = --help ]; then exec ../../TEMPLATE/avsr_smop1/avsr_smop.sh --help; fi
printf '%s\\n' "$@" ENDOFCALL >> run_calls
experiment="${@: -1}"
case "$*" in *"--stop_stage 10 "*)
    mkdir -p exp/smoke/avsr_stats/valid
    echo x > exp/smoke/avsr_stats/valid/duration_shape
    exit ;;
esac
case "${experiment}" in *"$(cat fails 2>/dev/null || echo nothing)") echo went wrong; exit 7 ;; esac
if [ -d meet ]; then
    touch "meet/$$"
    for k in {1..300}; do
        if [ "$(ls meet | wc -l)" -ge 2 ]; then break; fi
        sleep 0.1
    done
    [ "$(ls meet | wc -l)" -ge 2 ]
fi
cp -r scored/. "${experiment}"
case "$*" in *"--views "*)
    for tag in asr_a4 asr_a8 vsr_v2 vsr_v4 avsr_a4_v2 avsr_a4_v4 avsr_a8_v2 avsr_a8_v4; do
        cp -r "${experiment}/decode" "${experiment}/decode_${tag}"
    done
    rm -r "${experiment}/decode"
    for view in asr/4 asr/8 avsr/4 avsr/8; do
        tag="${view%/*}_a${view#*/}"
        case "${view}" in avsr*) tag+=_v2 ;; esac
        printf '{"utterances": 1, "speech_seconds": 2, "decoding_seconds": %s,
            "peak_memory_mib": 1, "memory_of": "process", "task": "%s",
            "rates": {"audio": %s}, "media_tokens": %s}' \
            $((24 / ${view#*/})) "${view%/*}" "${view#*/}" $((80 / ${view#*/})) \
            > "${experiment}/decode_${tag}/test/costs.json"
    done ;;
esac
seed="$(grep -oE -- '--seed [0-9]+' <<< "$*" | tail -n 1)"
sed -i "s/^seed: .*/seed: ${seed#--seed }/" "${experiment}/config.yaml"
touch -d '1 minute ago' "${experiment}/valid.acc.ave.pth"
touch "${experiment}/RESULTS.md"
"""


@pytest.fixture
def mini(recipe):
    scripts = ["variant.sh", "series.sh", "run_table1.sh", "run_width.sh", "dense_width.py"]
    scripts += ["run_omni.sh", "compare_views.py"]
    for script in scripts:
        shutil.copy(MINI / "local" / script, recipe.dir / "local" / script)
    (recipe.dir / "base_models").symlink_to(MINI / "base_models")
    for config in (MINI / "conf").glob("*.yaml"):
        shutil.copy(config, recipe.dir / "conf")
    recipe.write("run.sh", RUN)
    (recipe.dir / "scored").mkdir()
    shutil.copy(MINI / "conf" / "train_base.yaml", recipe.dir / "scored" / "config.yaml")
    for name, text in (("ref", "u A B C D\n"), ("hyp", "u A B X D\n"), ("utt2spk", "u s\n")):
        recipe.write(name, text)
    for condition in ("test", "test_babble_snr0"):
        arguments = ["--ref", "ref", "--hyp", "hyp", "--utt2spk", "utt2spk"]
        arguments = [str(recipe.dir / x) if "--" not in x else x for x in arguments]
        out = str(recipe.dir / "scored" / "decode" / condition)
        results.main(["score", *arguments, "--out_dir", out])
    return recipe


def calls(recipe):
    path = recipe.dir / "run_calls"
    text = path.read_text() if path.exists() else ""
    path.unlink(missing_ok=True)
    return [call.strip("\n").split("\n") for call in text.split("ENDOFCALL")[:-1]]


def option(call, name):
    return call[len(call) - call[::-1].index(f"--{name}")]


def table1(mini, *options, script="local/run_table1.sh"):
    return mini.run("--size", "smoke", "--ngpu", "0", *options, script=script)


def experiments(made, prefix="exp/smoke/avsr_train_avsr_"):
    return [call[-1].removeprefix(prefix) for call in made]


def test_eight_systems_and_one_table(mini):
    done = table1(mini, "--jobs", "1")
    assert done.returncode == 0, done.stderr
    data, *made = calls(mini)
    # Data and base models are made once, with all cores.
    assert data[-4:-2] == ["--stop_stage", "10"] and "--num_threads" not in data
    names = [f"train_avsr_{system}" for system in SYSTEMS]
    assert [option(c, "avsr_config") for c in made] == [f"conf/{n}.yaml" for n in names]
    assert [c[-2:] for c in made] == [["--avsr_exp", f"exp/smoke/avsr_{name}"] for name in names]
    assert all(option(c, "size") == "smoke" and option(c, "ngpu") == "0" for c in made)
    assert all(option(c, "stage") == "11" and "--avsr_args" not in c for c in made)
    # They are analysed together, not one by one.
    assert all(option(c, "skip_stages") == "16" for c in made)
    assert all(option(c, "summary") == "false" for c in made)
    (analysis,) = mini.calls("results report")
    assert analysis[:8] == [f"exp/smoke/avsr_{name}" for name in names]
    assert analysis[8:12] == ["--data_dir", "dump/smoke/raw/test", "--out", "exp/smoke/analysis"]
    assert "7 of 8 experiments done, 0 failed, 1 left: about 0:00 h" in done.stdout
    table = done.stdout.splitlines()
    assert table[-10].split() == ["task", "system", "clean", "0", "dB"]
    assert [line.split()[1] for line in table[-8:]] == [f"avsr_{name}" for name in names]
    assert all(line.count("25.00 [") == 2 for line in table[-8:])


def test_seeds_are_those_of_the_training_alone(mini):
    options = ("--systems", "llama_avsr dci", "--seeds", "0 2", "--avsr_args", "--max_epoch 3")
    done = table1(mini, "--jobs", "1", *options)
    assert done.returncode == 0, done.stderr
    _, *made = calls(mini)
    assert experiments(made) == ["llama_avsr", "dci", "llama_avsr_seed2", "dci_seed2"]
    assert all(option(c, "seed") == "0" for c in made)  # of the corpus
    assert [option(c, "avsr_args") for c in made] == (
        2 * ["--max_epoch 3"] + 2 * ["--max_epoch 3 --seed 2"]
    )
    (analysis,) = mini.calls("results report")
    assert experiments([analysis[:1], analysis[:2]]) == ["llama_avsr", "dci"]
    assert "--data_dir" in analysis[2:3]
    table = [line.split() for line in done.stdout.splitlines()]
    same = ["25.00", "±", "0.00"]
    assert ["AVSR", "avsr_train_avsr_llama_avsr", "2", *same, *same] in table
    assert table[-1][:4] == ["AVSR", "avsr_train_avsr_dci", "+0.00", "[+0.00,"]

    done = table1(mini, "--seed", "3", "--systems", "dci")
    assert option(calls(mini)[-1], "seed") == "3"
    assert (mini.dir / "exp/smoke_seed3/avsr_train_avsr_dci").is_dir()


def test_experiments_side_by_side_share_the_cores(mini):
    (mini.dir / "meet").mkdir()
    done = table1(mini, "--systems", "llama_avsr dci", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    _, *made = calls(mini)
    assert sorted(experiments(made)) == ["dci", "llama_avsr"]
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert [option(c, "num_threads") for c in made] == [threads] * 2
    assert [option(c, "inference_nj") for c in made] == [threads] * 2


def test_what_is_scored_is_kept_and_a_failure_stops_nothing_else(mini):
    (mini.dir / "fails").write_text("smop4_jejr")
    done = table1(mini, "--jobs", "2")
    assert done.returncode == 1 and len(calls(mini)) == 9
    assert done.stderr.splitlines()[-1].startswith(
        "run_table1.sh: failed: avsr_train_avsr_smop4_jejr. See"
    )
    assert "1 failed, 0 left" in done.stdout
    log = mini.dir / "exp/smoke/avsr_train_avsr_smop4_jejr/run.log"
    assert log.read_text() == "went wrong\n"
    assert sum(line.count("25.00 [") == 2 for line in done.stdout.splitlines()) == 7
    (mini.dir / "fails").unlink()
    dci = mini.dir / "exp/smoke/avsr_train_avsr_dci"
    os.utime(dci / "RESULTS.md", (0, 0))
    done = table1(mini, "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert experiments(calls(mini)) == ["dci", "smop4_jejr"]


def test_all_are_the_eight_and_two_dense_ones(mini):
    done = table1(mini, "--systems", "all")
    assert done.returncode == 0, done.stderr
    dense = {"llama_avsr_active", "llama_avsr_total"}
    assert set(experiments(calls(mini)[1:])) == {*SYSTEMS, *dense}


@pytest.mark.slow  # builds models to count parameters
def test_widths(mini):
    options = ("--widths", "8 100", "--seeds", "0 1", "--jobs", "1")
    done = table1(mini, *options, script="local/run_width.sh")
    assert done.returncode == 0, done.stderr
    _, *made = calls(mini)
    names = ["dense_same_active_w8", "smop4_dedr_w8", "dense_same_active_w100", "smop4_dedr_w100"]
    names += [f"{name}_seed1" for name in names]
    assert experiments(made, "exp/smoke/avsr_") == names
    assert [option(c, "avsr_config").split("avsr_", 1)[1] for c in made] == (
        4 * ["llama_avsr.yaml", "smop4_dedr.yaml"]
    )
    widths = [option(c, "avsr_args").split("hidden_size=")[1] for c in made]
    assert widths[1::2] == ["8", "100", "8 --seed 1", "100 --seed 1"]
    assert int(widths[0]) > 16 and int(widths[2]) > 200
    (figure,) = mini.calls("results widths")
    assert figure[-2:] == ["--output_dir", "exp/smoke/width"]
    assert experiments([[path] for path in figure[:-2]], "exp/smoke/avsr_") == names
    compared = [x for x in done.stdout.splitlines() if x.startswith("Difference from")]
    assert [line.split()[2] for line in compared] == [
        "avsr_dense_same_active_w8", "avsr_dense_same_active_w100",
    ]  # fmt: skip


def test_one_model_beside_one_for_each_task(mini):
    done = table1(mini, "--jobs", "1", "--single_epochs", "12", script="local/run_omni.sh")
    assert done.returncode == 0, done.stderr
    _, omni, *single = calls(mini)
    assert option(omni, "avsr_config") == "conf/train_omni_smop.yaml"
    assert option(omni, "views").split() == [
        "asr:4", "asr:8", "vsr:2", "vsr:4", "avsr:4,2", "avsr:4,4", "avsr:8,2", "avsr:8,4",
    ]  # fmt: skip
    assert "--avsr_args" not in omni
    tasks = ["asr", "vsr", "avsr"]
    assert [option(c, "tasks") for c in single] == tasks
    systems = ["asr_smop4", "vsr_smop4", "avsr_smop3_dedr"]
    for call, task, system in zip(single, tasks, systems, strict=True):
        assert option(call, f"{task}_config") == f"conf/train_{system}.yaml"
        # 900 steps after the warm start: 30 + 270 x 3.2222
        expected = "--max_epoch 12 --scheduler_conf cycle_mult=3.2222"
        assert option(call, "avsr_args") == expected and "--views" not in call
    lines = done.stdout.splitlines()
    assert sum(line.count("25.00 [") == 2 for line in lines) == 8 + 3
    # The stand-in's models of one task are all of AVSR, clean and in noise.
    assert sum("A - B = +0.00" in line for line in lines) == 3 * 2
    fast = [line.split() for line in lines if line.endswith("2.00 x")]
    assert [words[0] for words in fast] == ["ASR", "AVSR"]
    assert all(words[-4:] == ["5.0", "3", "2.00", "x"] for words in fast)
    done = table1(mini, "--single_epochs", "12", script="local/run_omni.sh")
    assert done.returncode == 0 and calls(mini) == []
    done = table1(mini, "--single_epochs", "3", script="local/run_omni.sh")
    assert done.returncode == 2 and "--single_epochs must be a number above 3" in done.stderr


def test_errors(mini):
    done = mini.run("--systems", "dci smop5", script="local/run_table1.sh")
    assert done.returncode == 2
    assert "no conf/train_avsr_smop5.yaml, only: llama_avsr" in done.stderr
    assert "not 'x'" in mini.run("--seed", "x", script="local/run_table1.sh").stderr
    assert "--seeds must be" in mini.run("--seeds", "1 x", script="local/run_table1.sh").stderr
    assert "--jobs must be" in mini.run("--jobs", "two", script="local/run_table1.sh").stderr
    assert "--widths must be" in mini.run("--widths", "0", script="local/run_width.sh").stderr
    assert "needs a value" in mini.run("--size", script="local/run_table1.sh").stderr
    assert calls(mini) == []
