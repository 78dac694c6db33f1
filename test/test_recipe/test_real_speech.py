"""The recipe of real speech: what its sets hold, and that its two systems cost the same."""

import gzip
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from espnet_smop.config import load_config
from espnet_smop.fileio.table import read_table
from espnet_smop.results.parameters import count_parameters
from espnet_smop.tasks.avsr import AVSRTask

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs2" / "real_speech" / "avsr_smop1"
SETS = ("train", "valid", "test_human", "test_synthetic")


@pytest.fixture(scope="module")
def asterisk(tmp_path_factory):
    """Return options that name 60 prompts of half a second; three more are no sentences."""
    directory = tmp_path_factory.mktemp("asterisk sounds")
    lines = ["; Core Sounds", "", "beep: [a tone]", "digit: Press 1 now", "one: Alone"]
    for i in range(60):
        letters = f"{chr(97 + i // 10)}{chr(97 + i % 10)}"
        lines.append(f"p-{letters}: Please call {letters}, Sir.")
        with av.open(str(directory / f"p-{letters}.g722"), "w", format="g722") as file:
            stream = file.add_stream("g722", rate=16000, layout="mono")
            samples = (np.sin(np.arange(8000) / 8) * 8000).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate = 16000
            file.mux([*stream.encode(frame), *stream.encode(None)])
    (directory / "texts.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return ["--sounds", str(directory), "--texts", str(directory / "texts.gz")]


def make_speech(*arguments):
    command = [sys.executable, str(RECIPE / "local/make_speech.py"), *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/egs2/synthesis"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_sets_share_neither_sentences_nor_test_voices(asterisk, tmp_path):
    """The recipe's stages 1 to 4."""
    pytest.importorskip("espeakng_loader")
    egs2 = tmp_path / "a clone" / "egs2"
    made = shutil.ignore_patterns("data", "dump", "exp", "downloads")
    shutil.copytree(ROOT / "egs2", egs2, symlinks=True, ignore=made)
    recipe = egs2 / "real_speech/avsr_smop1"
    options = ["--local_data_opts", shlex.join(["--synthetic", "40", *asterisk])]
    done = subprocess.run(
        ["./run.sh", "--stop_stage", "4", "--ngpu", "0", "--systems", "smop4", *options],
        cwd=recipe, capture_output=True, text=True, timeout=500,
        env={**os.environ, "ESPNET_SMOP_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    texts, people = {}, {}
    for name in SETS:
        written, directory = recipe / "data" / name, recipe / "dump/raw" / name
        texts[name] = read_table(directory / "text")
        people[name] = set(read_table(directory / "utt2spk").values())
        assert texts[name] == read_table(written / "text")
        samples = read_table(directory / "utt2num_samples")
        sources = read_table(written / "wav.scp")
        for key, path in read_table(directory / "wav.scp").items():
            info = soundfile.info(recipe / path)
            assert (info.samplerate, info.frames) == (16000, int(samples[key]))
            assert info.frames > 4000
            # Stage 3 changes no sample.
            assert soundfile.info(recipe / sources[key]).frames == info.frames
    for test in ("test_human", "test_synthetic"):
        assert not set(texts[test].values()) & set(texts["train"].values())
    assert people["test_human"] == {"allison"}
    assert not people["test_synthetic"] & (people["train"] | people["valid"])
    human = [k for name in SETS for k in texts[name] if k.startswith("allison-")]
    assert len(human) == len(set(human)) == 60
    # No word of a docstring that is not one of speech
    words = {word for name in SETS for text in texts[name].values() for word in text.split()}
    assert all(word.replace("'", "").isalpha() and word.islower() for word in words)

    text = recipe / "data/train/text"
    before = text.stat().st_mtime_ns
    where = ["--out", recipe / "data", "--audio_dir", tmp_path / "none"]
    assert make_speech(*where, "--synthetic", 40, *asterisk).stdout == ""
    assert text.stat().st_mtime_ns == before
    assert "has 40 synthetic sentences, not 41" in (
        make_speech(*where, "--synthetic", 41, *asterisk).stderr
    )


def test_missing_prompts_are_named(tmp_path):
    where = ["--out", tmp_path / "data", "--audio_dir", tmp_path / "audio"]
    done = make_speech(*where, "--sounds", tmp_path / "none")
    assert done.returncode == 1
    assert "install Debian's packages asterisk-core-sounds-en-g722" in done.stderr


def test_a_token_costs_the_same_in_both_systems(tmp_path):
    active, all_ = {}, {}
    for system in ("llama_avsr", "smop4"):
        config = load_config(RECIPE / "conf" / f"train_asr_{system}.yaml")
        config["audio_frontend_conf"]["model"] = "openai/whisper-tiny.en"
        config["decoder_conf"]["model"] = "HuggingFaceTB/SmolLM2-135M"
        defaults = vars(AVSRTask.get_parser().parse_args([]))
        assert not config.keys() - defaults.keys()
        found = count_parameters({**defaults, **config}, tmp_path)
        active[system], all_[system] = found.projector_active, found.projector
    assert active["smop4"] == pytest.approx(active["llama_avsr"], rel=0.01)
    assert all_["smop4"] > 1.8 * all_["llama_avsr"]
