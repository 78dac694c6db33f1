"""Ordinary mistakes on the command line end at once, say what to do, and change nothing."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ("lrs3", "lrs2", "mini_lrs3", "own_corpus", "real_speech")
EXP = "exp/avsr_train"
ONLY_DECODING = ("--stage", "12", "--stop_stage", "12")

DRIVER = [
    # Calls that do nothing
    (["--stage", "99"], "there is no stage 99; the stages are 1 3 4 5 6 7 10"),
    (["--stage", "12", "--stop_stage", "10"], "--stage 12 comes after --stop_stage 10"),
    (["--stage", "14"], "stage 14 is skipped: add --skip_packing false"),
    (["--stage", "15"], "stage 15 is skipped: add --skip_upload false"),
    (["--stage", "15", "--skip_upload", "false"], "--hf_repo ID is required"),
    (["--stage", "10", "--stop_stage", "11", "--skip_train", "true"], "nothing to do"),
    (["--stage", "8", "--stop_stage", "9"], "nothing to do"),
    (["--stop_stage", "4", "--skip_stages", "1 3 4"], "all stages from 1 to 4 are skipped"),
    (["--skip_stages", "5,6"], "--skip_stages: there is no stage '5,6'"),
    # Options without effect
    (["--ngpu", "0", "--gpu_inference", "true"], "--ngpu 0 decodes on the CPU"),
    (["--hf_repo", "me/mine"], "stage 15, which is skipped: add --skip_upload false"),
    (["--pack_opts", "--license mit"], "stage 14, which is skipped: add --skip_packing false"),
    (["--nbpe", "100"], "--nbpe needs --train_tokenizer true"),
    (["--base_models_opts", "--seed 1"], "the recipe has no local/base_models.sh"),
    (["--local_data_opts", "--data_dir d"], "data directories are named by --datadir"),
    (["--noise", "conf/train.yaml", "--babble_utts", "9"], "no babble is made"),
    # Misspelt options and values
    (["--inference_model", "x"], "no option --inference_model; did you mean --inference_"),
    (["--stpo_stage", "4"], "no option --stpo_stage; did you mean --stop_stage?"),
    (["--modal", "asr"], "no option --modal"),
    (["--avsr-conifg", "x"], "no option --avsr-conifg; did you mean --avsr_config?"),
    (["--inference_args", "--beam_size", "2"], 'quote what belongs to --inference_args: --inf'),
    (["--avsr_args", "--max_epoch", "2", "--stage", "11"], '--avsr_args "--max_epoch 2"'),
    (["--stage", "--stop_stage", "3"], "option --stage needs a value, not '--stop_stage'"),
    (["--max_wav_duration", "long"], "--max_wav_duration must be a number of seconds, not 'long'"),
    (["--babble_utts", "0"], "--babble_utts must be 1 or more"),
    (["--avsr_args", "--projector_conf '{a: 1"], "quotes do not match"),
    (["--noise", "none.wav"], "--noise none.wav does not exist"),
    (["--python", "/nowhere/python"], "/nowhere/python, named by --python"),
    (["--python", "/bin/true"], "/bin/true, named by --python or ESPNET_SMOP_PYTHON"),
    # Names of what is not there
    ([*ONLY_DECODING, "--test_sets", "tset"], "set tset in dump/raw, which has test train valid"),
    (["--stage", "3", "--train_set", "tr"], "no set tr in data, which has pretrain test train"),
    (["--stage", "10", "--valid_set", "dev"], "no set dev in dump/raw, which has test train"),
    (
        [*ONLY_DECODING, "--inference_avsr_model", "9epoch.pth"],
        f"{EXP} has no 9epoch.pth, only 3epoch.pth, valid.acc.ave.pth: see --inference_avsr_model",
    ),
    ([*ONLY_DECODING, "--avsr_tag", "typo"], "no experiment exp/avsr_typo, only avsr_train: see"),
    (["--stage", "13", "--inference_tag", "typo"], f"{EXP}/typo/test/text is missing or empty"),
    (["--stage", "10", "--avsr_config", "conf/typo.yaml"], "--avsr_config conf/typo.yaml does not"),
    (["--stage", "1", "--inference_config", "conf/typo.yaml"], "conf/typo.yaml does not exist"),
    (["--stage", "11", "--pretrained_model", "typo.pth"], "--pretrained_model typo.pth does not"),
    (["--stage", "11", "--avsr_stats_dir", "typo"], "typo/train/duration_shape is missing"),
    ([*ONLY_DECODING, "--snrs", "5", "--dumpdir", "dump2"], "dump2/raw/test/text is missing"),
]  # fmt: skip

# Each in its recipe's directory
SCRIPTS = [
    ("lrs3", ["./run.sh", "--stagee", "1"], "run.sh: there is no option --stagee; did you mean"),
    ("lrs3", ["./run.sh", "--snrs", "loud"], "run.sh: --snrs: 'loud' is neither clean nor"),
    ("lrs3", ["./run.sh", "--gpu", "2"], "run.sh: there is no option --gpu; did you mean --ngpu?"),
    ("lrs3", ["sh", "run.sh", "--stage", "99"], "run.sh: there is no stage 99"),
    ("lrs3", ["sh", "avsr_smop.sh", "--stage", "99"], "--train_set is required"),
    ("lrs3", ["local/run_paper.sh", "--tabel", "1"], "run_paper.sh: there is no option --tabel;"),
    ("lrs3", ["sh", "local/run_paper.sh", "--table", "9"], "has no table9, only table1 table2"),
    ("lrs3", ["local/data.sh", "--lsr3", "x"], "no option --lsr3; did you mean --lrs3?"),
    ("lrs3", ["local/base_models.sh", "--model", "x"], "there is no option --model"),
    ("lrs2", ["./run.sh", "--gpu", "2"], "run.sh: there is no option --gpu; did you mean --ngpu?"),
    ("lrs2", ["local/data.sh", "--lsr2", "x"], "no option --lsr2; did you mean --lrs2?"),
    ("lrs2", ["local/data.sh", "--allow_broken", "yes"], "must be true or false, not 'yes'"),
    ("mini_lrs3", ["./run.sh", "--size", "big"], "--size must be default, smoke or a number"),
    ("mini_lrs3", ["./run.sh", "--task", "asr"], "no option --task; did you mean --tasks?"),
    ("mini_lrs3", ["./run.sh", "--stage", "99"], "run.sh: there is no stage 99"),
    ("mini_lrs3", ["local/run_table1.sh", "--system", "x"], "did you mean --systems?"),
    ("mini_lrs3", ["local/run_table1.sh", "--systems", "x"], "only: llama_avsr dci mmfuser"),
    ("mini_lrs3", ["local/data.sh", "--sizes", "9"], "did you mean --size?"),
    ("own_corpus", ["./run.sh", "--tasks", "asr"], "no option --tasks; did you mean --task?"),
    ("own_corpus", ["./run.sh", "--inference_args", "--beam_size", "2"], "quote what belongs to"),
    ("own_corpus", ["local/data.sh", "--corpsu", "x"], "did you mean --corpus?"),
    ("own_corpus", ["local/data.sh", "--mouth_crops", "yes"], "must be true or false, not 'yes'"),
    ("real_speech", ["./run.sh", "--systems", "smop5"], "there is no conf/train_asr_smop5.yaml"),
    ("real_speech", ["./run.sh", "--seeds", "x"], "--seeds: 'x' is not a number"),
    ("real_speech", ["local/base_models.sh", "--force", "1"], "there is no option --force"),
    ("TEMPLATE", ["./setup.sh", "--name", "mine"], "setup.sh: there is no option --name"),
    ("TEMPLATE", ["./setup.sh", "/elsewhere/mine/avsr_smop1"], "is not in this clone's egs2"),
    ("TEMPLATE", ["./setup.sh"], "setup.sh: give one new directory"),
]


def state(directory):
    """Return what is in a directory and when it changed."""
    return {str(p): p.lstat().st_mtime_ns for p in directory.rglob("*") if p.name != "calls"}


def check(done, began, message):
    assert time.monotonic() - began < 10
    assert done.returncode in (1, 2)
    assert message in done.stderr
    # The error, and perhaps where the options are explained.
    assert len(done.stderr.splitlines()) <= 2, done.stderr


@pytest.fixture(scope="module")
def trained(shared_recipe):
    """Return a recipe after all its stages."""
    done = shared_recipe.run()
    assert done.returncode == 0, done.stderr
    return shared_recipe


@pytest.mark.parametrize(("arguments", "message"), DRIVER)
def test_a_mistake_is_refused_and_nothing_is_touched(trained, arguments, message):
    before, began = state(trained.dir), time.monotonic()
    check(trained.run(*arguments), began, message)
    assert state(trained.dir) == before


@pytest.fixture(scope="module")
def egs2(trained):
    """Return the recipes, beside the one that the tests share."""
    egs2 = trained.dir.parent.parent
    made = shutil.ignore_patterns("data", "dump", "exp", "downloads")
    for name in RECIPES:
        shutil.copytree(ROOT / "egs2" / name, egs2 / name, symlinks=True, ignore=made)
    return egs2


@pytest.mark.parametrize(("recipe", "command", "message"), SCRIPTS)
def test_a_mistake_names_the_script_that_was_called(trained, egs2, recipe, command, message):
    before, began = state(egs2), time.monotonic()
    env = {**os.environ, "ESPNET_SMOP_PYTHON": str(trained.dir / "env/bin/python")}
    done = subprocess.run(
        command, cwd=egs2 / recipe / "avsr_smop1", env=env, capture_output=True, text=True
    )
    check(done, began, message)
    assert state(egs2) == before


def test_a_failed_decoding_leaves_the_earlier_one(trained):
    text = trained.dir / EXP / "decode_avsr_model_valid.acc.ave/test/text"
    before = text.read_text()
    (trained.dir / "env/fail avsr_inference").touch()
    done = trained.run(*ONLY_DECODING)
    (trained.dir / "env/fail avsr_inference").unlink()
    assert done.returncode == 1 and text.read_text() == before
    assert (text.parent / "score_wer/result.txt").exists()
    done = trained.run("--stage", "13", "--stop_stage", "13")
    assert "logdir.new: run stage 12 again" in done.stderr
    assert trained.run(*ONLY_DECODING).returncode == 0
    assert not (text.parent / "logdir.new").exists()
    assert not (text.parent / "score_wer").exists()  # of the earlier decoding


@pytest.mark.parametrize(
    ("held", "stages", "lock"),
    [
        ("data_dir format", ("--stage", "3", "--stop_stage", "4"), "dump/.stages.lock"),
        ("avsr_inference", ONLY_DECODING, f"{EXP}/.decode_avsr_model_valid.acc.ave.lock"),
    ],
)
def test_two_runs_at_once_take_turns(trained, held, stages, lock):
    text = trained.dir / EXP / "decode_avsr_model_valid.acc.ave/test/text"
    before, hold = text.read_text(), trained.dir / f"env/hold {held}"
    hold.touch()
    called = len(trained.calls(held))
    first = trained.start(*stages)
    while len(trained.calls(held)) < called + 2:  # --nj 2
        assert first.poll() is None
        time.sleep(0.1)
    second = trained.start(*stages)
    line = next(line for line in second.stdout if "another run" in line)
    assert line.rstrip().endswith(f"{lock} is locked by another run: waiting")
    assert len(trained.calls(held)) == called + 2
    hold.unlink()
    for run in (first, second):
        _, err = run.communicate(timeout=300)
        assert (run.returncode, err) == (0, "")
    assert text.read_text() == before
    assert not (text.parent / "logdir.new").exists()


def test_without_locks_in_the_file_system_a_run_says_so(trained):
    trained.write("bin/flock", "#!/bin/sh\necho 'flock: 10: No locks available' >&2\nexit 71\n")
    done = trained.run(*ONLY_DECODING, PATH=f"{trained.dir}/bin:{os.environ['PATH']}")
    shutil.rmtree(trained.dir / "bin")
    assert done.returncode == 0
    [line] = done.stderr.splitlines()
    assert line.endswith("the file system has no locks; do not start a second run here")


@pytest.mark.slow  # imports torch
def test_a_downloaded_model_replaces_no_training(trained):
    shutil.copytree(trained.dir / EXP, trained.dir / "a model", dirs_exist_ok=True)
    (trained.dir / "a model/config.yaml").write_text("audio_frontend: another\n")
    before = state(trained.dir / EXP)
    done = trained.run(*ONLY_DECODING, "--download_model", "a model", "--avsr_exp", EXP)
    assert done.returncode == 1
    assert f"{EXP} holds another experiment: choose another --avsr_exp" in done.stderr
    assert state(trained.dir / EXP) == before
