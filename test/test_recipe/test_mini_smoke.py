"""The smoke size of the mini recipe, from nothing to RESULTS.md, killed twice on its way."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SETS = {"train": 32, "valid": 8, "test": 12}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    root = tmp_path_factory.mktemp("a clone")
    ignored = shutil.ignore_patterns("data", "dump", "exp", "downloads")
    shutil.copytree(ROOT / "egs2", root / "egs2", symlinks=True, ignore=ignored)
    return root / "egs2" / "mini_lrs3" / "avsr_smop1"


def start(recipe, *options):
    python_path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = {
        **os.environ,
        "ESPNET_SMOP_PYTHON": sys.executable,
        "PYTHONPATH": ":".join(filter(None, python_path)),
    }
    env.pop("OMP_NUM_THREADS", None)
    return subprocess.Popen(
        ["./run.sh", "--size", "smoke", "--ngpu", "0", *options],
        cwd=recipe, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def kill_when(process, condition):
    deadline = time.monotonic() + 900
    while not condition():
        assert process.poll() is None, process.stdout.read()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    time.sleep(3)  # the jobs notice that their driver is gone


def finish(process):
    output, _ = process.communicate(timeout=1500)
    assert process.returncode == 0, output[-5000:]
    return output


def ids(path):
    return [line.split()[0] for line in path.read_text().splitlines()]


def test_two_kills_and_a_finish(recipe):
    raw, exp = recipe / "dump/smoke/raw", recipe / "exp/smoke/avsr_train_avsr_smop3_dedr"

    kill_when(start(recipe), lambda: len(list(raw.rglob("*.flac"))) >= 5)
    assert not (raw / "train" / "text").exists()
    kill_when(start(recipe), (exp / "1epoch.pth").exists)
    assert not (exp / "valid.acc.ave.pth").exists()
    output = finish(start(recipe))

    for name, count in SETS.items():
        for file in ("text", "wav.scp", "video.scp", "utt2spk"):
            found = ids(raw / name / file)
            assert found == sorted(set(found)), f"{name}/{file}"
            assert len(found) == len(ids(raw / name / "text"))
        assert len(ids(raw / name / "text")) == count
    decode = exp / "decode_avsr_model_valid.acc.ave"
    for condition in ("test", "test_babble_snr0"):
        assert ids(decode / condition / "text") == ids(raw / "test" / "text")
        for score in ("score_wer", "score_cer"):
            table = (decode / condition / score / "result.txt").read_text()
            assert table.count("Avg") == 1
            assert (decode / condition / score / "hyp.trn").read_text().count("\n") == 12
    results = (exp / "RESULTS.md").read_text()
    assert "|Snt|Wrd|" in results.replace(" ", "")
    assert "test_babble_snr0" in results
    table, _, advice = output.partition("Report with figures: ")
    assert "AVSR" in table[-1500:]
    assert (exp / "analysis/report.html").is_file()
    assert str(exp / "analysis/report.html") == advice.split("\n")[0]
    assert "./run.sh --size smoke --seed 0 --skip_data_prep true --avsr_config" in advice

    state = torch.load(exp / "valid.acc.ave.pth", weights_only=True)
    assert {name.split(".")[0] for name in state} == {"projector", "decoder", "warm_start"}
    assert all("lora_" in n or "delimiters" in n for n in state if n.startswith("decoder."))


def test_decoding_again_trains_nothing(recipe):
    exp = recipe / "exp/smoke/avsr_train_avsr_smop3_dedr"
    hypotheses = exp / "decode_avsr_model_valid.acc.ave/test/text"
    before = (exp / "2epoch.pth").stat().st_mtime_ns, hypotheses.stat().st_mtime_ns
    texts = hypotheses.read_text()
    finish(start(recipe, "--stage", "12"))
    assert (exp / "2epoch.pth").stat().st_mtime_ns == before[0]
    assert hypotheses.stat().st_mtime_ns > before[1]
    assert hypotheses.read_text() == texts


def test_base_models_can_be_made_anew(recipe):
    """Pretrained at the smoke size, they take the place of the given ones."""
    base = recipe / "exp/smoke/base"
    given = (base / "avhubert/model.safetensors").read_bytes()
    committed = recipe / "base_models/avhubert/model.safetensors"
    assert given == committed.read_bytes()
    shutil.rmtree(base)
    finish(start(recipe, "--stage", "6", "--stop_stage", "6", "--pretrain_bases", "true"))
    for name in ("llm", "whisper", "avhubert"):
        assert (base / name / "pretraining.json").is_file()
    assert (base / "avhubert/model.safetensors").read_bytes() != given
    assert committed.read_bytes() == given
    finish(start(recipe, "--stage", "6", "--stop_stage", "6"))
    assert (base / "avhubert/model.safetensors").read_bytes() == given


def test_another_system_by_the_config_alone(recipe):
    finish(start(recipe, "--stage", "11", "--avsr_config", "conf/train_avsr_smop4_jejr.yaml"))
    exp = recipe / "exp/smoke/avsr_train_avsr_smop4_jejr"
    assert (exp / "RESULTS.md").is_file()
    assert "router" in "".join(torch.load(exp / "valid.acc.ave.pth", weights_only=True))
