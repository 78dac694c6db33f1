"""local/run_table1.sh: what it calls, what it leaves as it is, and its table."""

import os
import shutil
from pathlib import Path

import pytest

from espnet_smop.bin import results

MINI = Path(__file__).resolve().parents[2] / "egs2" / "mini_lrs3" / "avsr_smop1"
SYSTEMS = [
    "llama_avsr", "dci", "mmfuser", "smop4_jejr", "smop4_jedr", "smop3_dedr", "smop4v_dci_a",
    "smop4v_mmfuser_a",
]  # fmt: skip
# Makes a scored experiment out of the one beside it; fails where it is told to.
RUN = """#!/usr/bin/env bash
if [ "${1:-}" = --help ]; then exec ../../TEMPLATE/avsr_smop1/avsr_smop.sh --help; fi
printf '%s\\n' "$@" ENDOFCALL >> run_calls
experiment="${@: -1}"
case "${experiment}" in *"$(cat fails 2>/dev/null || echo nothing)") exit 7 ;; esac
mkdir -p "${experiment}" exp/smoke/avsr_stats/valid
echo x > exp/smoke/avsr_stats/valid/duration_shape
cp -r scored/. "${experiment}"
touch -d '1 minute ago' "${experiment}/valid.acc.ave.pth"
touch "${experiment}/RESULTS.md"
"""


@pytest.fixture
def mini(recipe):
    for script in ("local/variant.sh", "local/run_table1.sh"):
        shutil.copy(MINI / script, recipe.dir / script)
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


def test_eight_systems_and_one_table(mini):
    done = mini.run("--size", "smoke", "--ngpu", "0", script="local/run_table1.sh")
    assert done.returncode == 0, done.stderr
    made = calls(mini)
    names = [f"train_avsr_{system}" for system in SYSTEMS]
    assert [c[c.index("--avsr_config") + 1] for c in made] == [f"conf/{n}.yaml" for n in names]
    assert [c[-2:] for c in made] == [["--avsr_exp", f"exp/smoke/avsr_{name}"] for name in names]
    assert all(c[c.index("--size") + 1] == "smoke" and "--ngpu" in c for c in made)
    # Data and base models are made once.
    assert ["--skip_data_prep" in c for c in made] == [False] + 7 * [True]
    # They are analysed together, not one by one.
    assert all(c[c.index("--skip_stages") + 1] == "16" for c in made)
    (analysis,) = mini.calls("results report")
    assert analysis[:8] == [f"exp/smoke/avsr_{name}" for name in names]
    assert analysis[8:12] == ["--data_dir", "dump/smoke/raw/test", "--out", "exp/smoke/analysis"]
    table = done.stdout.splitlines()
    assert table[-10].split() == ["task", "system", "clean", "0", "dB"]
    assert [line.split()[1] for line in table[-8:]] == [f"avsr_{name}" for name in names]
    assert all(line.count("25.00 [") == 2 for line in table[-8:])


def test_what_is_scored_is_kept_and_what_is_older_than_its_model_is_not(mini):
    (mini.dir / "fails").write_text("smop4_jejr")
    done = mini.run("--size", "smoke", script="local/run_table1.sh")
    assert done.returncode == 7 and len(calls(mini)) == 4
    (mini.dir / "fails").unlink()
    dci = mini.dir / "exp/smoke/avsr_train_avsr_dci"
    os.utime(dci / "RESULTS.md", (0, 0))
    done = mini.run("--size", "smoke", script="local/run_table1.sh")
    assert done.returncode == 0, done.stderr
    made = [c[-1].removeprefix("exp/smoke/avsr_train_avsr_") for c in calls(mini)]
    assert made == ["dci", *SYSTEMS[3:]]


def test_errors(mini):
    done = mini.run("--systems", "dci smop5", script="local/run_table1.sh")
    assert done.returncode == 2
    assert "no conf/train_avsr_smop5.yaml, only: llama_avsr" in done.stderr
    assert "not 'x'" in mini.run("--seed", "x", script="local/run_table1.sh").stderr
    assert "needs a value" in mini.run("--size", script="local/run_table1.sh").stderr
    assert calls(mini) == []
