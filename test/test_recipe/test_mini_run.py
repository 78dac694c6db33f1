"""run.sh of the mini recipe, with a driver that notes how it is called."""

import shutil
from pathlib import Path

import pytest

MINI = Path(__file__).resolve().parents[2] / "egs2" / "mini_lrs3" / "avsr_smop1"
DRIVER = """#!/usr/bin/env bash
if [ "${1:-}" = --help ]; then exec ../../TEMPLATE/avsr_smop1/avsr_smop.sh --help; fi
printf '%s\\n' "$@" ENDOFCALL >> driver_calls
exit "$(cat driver_status 2>/dev/null || echo 0)"
"""


@pytest.fixture
def mini(recipe):
    for script in ("run.sh", "local/variant.sh"):
        shutil.copy(MINI / script, recipe.dir / script)
    for config in (MINI / "conf").glob("*.yaml"):
        shutil.copy(config, recipe.dir / "conf")
    (recipe.dir / "avsr_smop.sh").unlink()
    recipe.write("avsr_smop.sh", DRIVER)
    for name in ("exp", "exp/smoke_seed3"):
        (recipe.dir / name).mkdir()
    return recipe


def calls(recipe):
    text = (recipe.dir / "driver_calls").read_text()
    return [call.strip("\n").split("\n") for call in text.split("ENDOFCALL")[:-1]]


def option(call, name):
    return call[len(call) - call[::-1].index(f"--{name}")]


def test_default_is_avsr_in_the_usual_directories(mini):
    done = mini.run(script="run.sh")
    assert done.returncode == 0, done.stderr
    (call,) = calls(mini)
    assert option(call, "modality") == "avsr"
    assert option(call, "avsr_config") == "conf/train_avsr_smop3_dedr.yaml"
    assert [option(call, f"{x}dir") for x in ("data", "dump", "exp")] == ["data", "dump", "exp"]
    assert option(call, "snrs") == "clean 5 0 -5"
    assert "no scored decode directory" in done.stdout


def test_tasks_share_data_and_pass_options_on(mini):
    done = mini.run("--tasks", "asr vsr avsr", "--avsr_config", "conf/train_avsr_smop4_jejr.yaml",
                    "--stage", "12", "--snrs", "clean", script="run.sh")  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = calls(mini)
    assert [option(c, "modality") for c in made] == ["asr", "vsr", "avsr"]
    assert [option(c, "avsr_config").split("/")[-1] for c in made] == [
        "train_asr_smop4.yaml", "train_vsr_smop4.yaml", "train_avsr_smop4_jejr.yaml",
    ]  # fmt: skip
    assert ["--skip_data_prep" in c for c in made] == [False, True, True]
    assert all(option(c, "snrs") == "clean" and option(c, "stage") == "12" for c in made)


def test_sizes_and_seeds_have_directories_of_their_own(mini):
    done = mini.run("--size", "smoke", "--seed", "3", script="run.sh")
    assert done.returncode == 0, done.stderr
    (call,) = calls(mini)
    assert option(call, "expdir") == "exp/smoke_seed3"
    assert "--size smoke --seed 3 --corpus downloads/mini_lrs3_smoke_seed3" in option(
        call, "local_data_opts"
    )
    config = (mini.dir / option(call, "avsr_config")).read_text()
    assert "model: exp/smoke_seed3/base/whisper" in config
    assert "file: dump/smoke_seed3/noise/babble.wav" in config
    assert "\nseed: 3\n" in config
    assert "\nmax_epoch: 2\n" in config
    assert "base:" not in config.replace("/base", "")
    assert "max_new_tokens: 8" in (mini.dir / option(call, "inference_config")).read_text()


def test_errors(mini):
    assert "not 'both'" in mini.run("--tasks", "both", script="run.sh").stderr
    assert "--size needs a value" in mini.run("--size", script="run.sh").stderr
    assert "not 'x'" in mini.run("--seed", "x", script="run.sh").stderr
    done = mini.run("--seed", "3", "--avsr_config", "conf/none.yaml", script="run.sh")
    assert done.returncode == 1
    assert "conf/none.yaml does not exist" in done.stderr
    assert not (mini.dir / "driver_calls").exists()
    (mini.dir / "driver_status").write_text("7")
    done = mini.run("--tasks", "asr vsr", script="run.sh")
    assert done.returncode == 7
    assert len(calls(mini)) == 1
