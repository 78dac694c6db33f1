"""A corpus of one's own: the recipe that setup.sh makes, from a folder of clips to a score."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

ROOT = Path(__file__).resolve().parents[2]
write_mp4 = runpy.run_path(str(ROOT / "test/corpus/conftest.py"))["write_mp4"]
MADE = ("data", "dump", "exp", "downloads")


@pytest.fixture
def egs2(tmp_path):
    """Return a copy of the recipes without what was run in them."""
    copy = tmp_path / "a clone" / "egs2"
    shutil.copytree(ROOT / "egs2", copy, symlinks=True, ignore=shutil.ignore_patterns(*MADE))
    return copy


def set_up(egs2, name="mine"):
    command = ["egs2/TEMPLATE/avsr_smop1/setup.sh", f"egs2/{name}/avsr_smop1"]
    return subprocess.run(command, cwd=egs2.parent, capture_output=True, text=True)


def test_setup_makes_a_recipe_and_overwrites_none(egs2):
    done = set_up(egs2)
    assert done.returncode == 0, done.stderr
    recipe, example = egs2 / "mine/avsr_smop1", egs2 / "own_corpus/avsr_smop1"
    names = {str(p.relative_to(example)) for p in example.rglob("*")}
    assert {str(p.relative_to(recipe)) for p in recipe.rglob("*")} == names
    for path in recipe.rglob("*"):
        if path.is_symlink():
            assert path.exists() and not os.path.isabs(os.readlink(path))
    assert (recipe / "scripts/utils/parse_options.sh").is_file()
    assert os.access(recipe / "run.sh", os.X_OK) and os.access(recipe / "local/data.sh", os.X_OK)

    (recipe / "run.sh").write_text("mine")
    done = set_up(egs2)
    assert done.returncode == 1 and "exists; give a new directory" in done.stderr
    assert (recipe / "run.sh").read_text() == "mine"
    assert set_up(egs2, "own_corpus").returncode == 1


def test_no_corpus_directory_is_named(egs2):
    set_up(egs2)
    done = run(egs2 / "mine/avsr_smop1", "", "--stop_stage", "1")
    assert done.returncode == 1 and "write it as CORPUS= in db.sh" in done.stderr


def run(recipe, corpus, *arguments):
    env = {**os.environ, "ESPNET_SMOP_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["./run.sh", "--ngpu", "0", "--nj", "1", "--inference_nj", "1", *arguments],
        cwd=recipe, env={**env, "CORPUS": str(corpus)}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip


def write_corpus(root, task):
    """Write two clips each of five speakers: with sound, pictures or both."""
    random = np.random.default_rng(0)
    for number in range(10):
        folder = root / f"speaker {number // 2}"
        folder.mkdir(parents=True, exist_ok=True)
        frames = random.integers(0, 255, (20, 96, 96), dtype=np.uint8)
        samples = (random.normal(size=20 * 640) * 0.1).astype(np.float32)
        if task == "asr":
            soundfile.write(folder / f"{number}.wav", samples, 16000)
        else:
            write_mp4(folder / f"{number}.mp4", frames, samples if task == "avsr" else None)
        (folder / f"{number}.txt").write_text("place blue at f two now\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "inputs"),
    [("avsr", {"wav.scp", "video.scp"}), ("asr", {"wav.scp"}), ("vsr", {"video.scp"})],
)
def test_from_a_folder_to_a_score(
    task, inputs, egs2, tmp_path, tiny_whisper, tiny_avhubert, make_llm
):
    write_corpus(tmp_path / "the corpus", task)
    set_up(egs2)
    recipe = egs2 / "mine/avsr_smop1"
    tiny = {
        "base": f"train_{task}.yaml",
        "projector_conf": {"hidden_size": 16},
        "decoder_conf": {"model": make_llm("smollm"), "lora": {"r": 2, "alpha": 2}},
        "accum_grad": 1,
        "num_iters_per_epoch": 2,
        "max_epoch": 1,
        "num_workers": 0,
    }
    if task != "vsr":
        tiny["audio_frontend_conf"] = {"model": tiny_whisper}
    if task != "asr":
        tiny["video_frontend_conf"] = {"model": tiny_avhubert}
    (recipe / "conf/tiny.yaml").write_text(yaml.safe_dump(tiny))
    (recipe / "conf/short.yaml").write_text("beam_size: 1\nmax_new_tokens: 4\n")
    done = run(
        recipe, tmp_path / "the corpus", "--task", task, "--stop_stage", "13",
        "--local_data_opts", "--mouth_crops true", "--babble_utts", "3",
        "--snrs", "clean 0" if task == "avsr" else "clean",
        "--avsr_config", "conf/tiny.yaml", "--inference_config", "conf/short.yaml",
        "--avsr_tag", "tiny", "--inference_tag", "short",
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    for name, count in (("train", 6), ("valid", 2), ("test", 2)):
        directory = recipe / "dump/raw" / name
        assert {p.name for p in directory.glob("*.scp")} == inputs
        assert len((directory / "text").read_text().splitlines()) == count
    sets = [(recipe / f"data/{name}/spk2utt").read_text() for name in ("train", "valid", "test")]
    speakers = [line.split()[0] for text in sets for line in text.splitlines()]
    assert sorted(speakers) == [f"speaker_{i}" for i in range(5)]
    assert (recipe / "dump/noise/babble.wav").exists() == (task != "vsr")
    results = (recipe / "exp/avsr_tiny/RESULTS.md").read_text()
    assert "|short/test|2|12|" in results
    assert ("|short/test_babble_snr0|2|12|" in results) == (task == "avsr")
