"""The recipe of real speech: what its sets hold, and that its two systems cost the same."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from espnet_smop.config import load_config
from espnet_smop.results.parameters import count_parameters
from espnet_smop.tasks.avsr import AVSRTask

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs2" / "real_speech" / "avsr_smop1"
SETS = ("train", "valid", "test_human", "test_synthetic")


def table(path):
    return dict(line.split(maxsplit=1) for line in path.read_text().splitlines())


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
    pytest.importorskip("espeakng_loader")
    done = make_speech("--out", tmp_path / "raw", "--synthetic", 40, "--nj", 1, *asterisk)
    assert done.returncode == 0, done.stderr
    texts, people = {}, {}
    for name in SETS:
        directory = tmp_path / "raw" / name
        texts[name] = table(directory / "text")
        people[name] = set(table(directory / "utt2spk").values())
        samples = table(directory / "utt2num_samples")
        for key, path in table(directory / "wav.scp").items():
            info = soundfile.info(path)
            assert (info.samplerate, info.frames) == (16000, int(samples[key]))
            assert info.frames > 4000
    for test in ("test_human", "test_synthetic"):
        assert not set(texts[test].values()) & set(texts["train"].values())
    assert people["test_human"] == {"allison"}
    assert not people["test_synthetic"] & (people["train"] | people["valid"])
    human = [k for name in SETS for k in texts[name] if k.startswith("allison-")]
    assert len(human) == len(set(human)) == 60
    # No word of a docstring that is not one of speech
    words = {word for name in SETS for text in texts[name].values() for word in text.split()}
    assert all(word.replace("'", "").isalpha() and word.islower() for word in words)

    before = (tmp_path / "raw/train/text").stat().st_mtime_ns
    assert make_speech("--out", tmp_path / "raw", "--synthetic", 40, *asterisk).stdout == ""
    assert (tmp_path / "raw/train/text").stat().st_mtime_ns == before
    assert "with 40 synthetic sentences, not 41" in (
        make_speech("--out", tmp_path / "raw", "--synthetic", 41, *asterisk).stderr
    )


def test_missing_prompts_are_named(tmp_path):
    done = make_speech("--out", tmp_path / "raw", "--sounds", tmp_path / "none")
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
