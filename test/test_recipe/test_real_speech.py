"""The recipe of real speech: what its sets hold, and that its two systems cost the same."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from espnet2.tasks.abs_task import scheduler_classes

from espnet_smop.config import load_config
from espnet_smop.fileio.table import read_table
from espnet_smop.results.parameters import count_parameters
from espnet_smop.tasks.avsr import AVSRTask

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "egs2" / "real_speech" / "avsr_smop1"
SETS = ("train", "valid", "test_human", "test_synthetic")
sys.path[:0] = [str(RECIPE / "local"), str(ROOT / "egs2/synthesis")]


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
    made = ["--quotations", "0", "--lists", "12", "--joined", "10", "--voices", "espeak"]
    options = ["--local_data_opts", shlex.join(["--synthetic", "40", *made, *asterisk])]
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
        assert not set(texts[test].values()) & set(texts["valid"].values())
        trained = " | ".join(texts["train"].values())
        assert not [text for text in texts[test].values() if text in trained]
    assert people["test_human"] == {"allison"}
    assert not people["test_synthetic"] & (people["train"] | people["valid"])
    train_wavs = read_table(recipe / "data/train/wav.scp")
    human = [k for name in SETS for k in texts[name] if k.startswith("allison-p-")]
    assert len(human) == len(set(human)) == 60
    prompts = [k for k in texts["train"] if k.startswith("allison-p-")]
    for speed, length in (("0.9", 8889), ("1.1", 7273)):
        copies = {k for k in texts["train"] if k.startswith(f"allison-sp{speed}-")}
        assert copies == {k.replace("-", f"-sp{speed}-", 1) for k in prompts}
        for key in copies:
            assert soundfile.info(recipe / train_wavs[key]).frames == length
    joined = [text for k, text in texts["train"].items() if "-joined-" in k]
    assert len(joined) == 10
    assert {text.count("please call") for text in joined} == {2, 3}
    assert sum(not k.startswith("allison-") for k in texts["train"]) == 40 + 12
    # No word of a docstring that is not one of speech
    words = {word for name in SETS for text in texts[name].values() for word in text.split()}
    assert all(word.replace("'", "").isalpha() and word.islower() for word in words)

    text = recipe / "data/train/text"
    before = text.stat().st_mtime_ns
    where = ["--out", recipe / "data", "--audio_dir", tmp_path / "none"]
    assert make_speech(*where, "--synthetic", 40, *made, *asterisk).stdout == ""
    assert text.stat().st_mtime_ns == before
    other = make_speech(*where, "--synthetic", 41, *made, *asterisk).stderr
    assert "made with --synthetic 40 --quotations 0 --lists 12 --joined 10 --voices espeak" in other


def test_missing_prompts_are_named(tmp_path):
    where = ["--out", tmp_path / "data", "--audio_dir", tmp_path / "audio"]
    done = make_speech(*where, "--sounds", tmp_path / "none")
    assert done.returncode == 1
    assert "install Debian's packages asterisk-core-sounds-en-g722" in done.stderr


@pytest.mark.parametrize("suffix", ["", "_night"])
def test_dense_projectors_are_as_large_as_the_mixture(tmp_path, suffix):
    active, all_ = {}, {}
    for system in ("llama_avsr", "llama_avsr_total", "smop4"):
        config = load_config(RECIPE / "conf" / f"train_asr_{system}{suffix}.yaml")
        config["audio_frontend_conf"]["model"] = "openai/whisper-base"
        config["decoder_conf"]["model"] = "HuggingFaceTB/SmolLM2-135M"
        defaults = vars(AVSRTask.get_parser().parse_args([]))
        assert not config.keys() - defaults.keys()
        found = count_parameters({**defaults, **config}, tmp_path)
        active[system], all_[system] = found.projector_active, found.projector
    assert active["smop4"] == pytest.approx(active["llama_avsr"], rel=0.01)
    assert all_["smop4"] == pytest.approx(all_["llama_avsr_total"], rel=0.01)
    assert all_["smop4"] > 1.8 * all_["llama_avsr"]


@pytest.mark.parametrize("system", ["smop4", "smop4_night", "llama_avsr_night"])
def test_the_schedule_has_a_cosine_for_the_warm_start_and_one_for_the_llm(system):
    config = load_config(RECIPE / "conf" / f"train_asr_{system}.yaml")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = scheduler_classes[config["scheduler"]](optimizer, **config["scheduler_conf"])
    rates = []
    for _ in range(config["max_epoch"] * config["num_iters_per_epoch"]):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    warm = config["model_conf"]["ctc_warmup_steps"]
    lowest = config["scheduler_conf"]["min_lr"]
    assert max(rates[:warm]) == pytest.approx(2e-3) and max(rates[warm:]) == pytest.approx(1e-3)
    for end in (warm - 1, len(rates) - 1):
        assert rates[end] == pytest.approx(lowest, abs=1e-8)
    assert rates[warm] == pytest.approx(lowest)


def test_quotations_are_plain_sentences_without_their_authors(tmp_path):
    sentences = pytest.importorskip("sentences")
    (tmp_path / "wisdom").write_text(
        "To be is to do.\n\t\t-- I. Kant who said it\n%\n"
        "\tHe paid 3 dollars for it.  Why would anybody\ndo that?  Nobody knows!\n%\n"
        "I'd rather have fun than\n\t\t-- be right, of course I would.\n"
    )
    (tmp_path / "wisdom.dat").write_bytes(b"To be or not to be.")
    (tmp_path / "wisdom.u8").symlink_to("wisdom")
    assert sentences.quotations(tmp_path) == {"to be is to do", "why would anybody do that"}


def test_lists_have_words_of_one_kind_each():
    sentences = pytest.importorskip("sentences")
    lists = list(sentences.word_lists(60))
    assert lists == list(sentences.word_lists(60))  # the same each time
    assert all(3 <= len(text.split()) <= 8 for text in lists)
    days = {day for text in lists[5::6] for day in text.split()}
    assert " ".join(sorted(days)) == (
        "friday monday saturday sunday thursday today tomorrow tuesday wednesday yesterday"
    )


def test_a_room_keeps_energy_and_time_of_the_direct_sound():
    rooms = pytest.importorskip("rooms")
    samples = np.zeros(8000, dtype=np.float32)
    samples[3000] = 0.5
    response = np.array([0, 0.1, 1, 0, 0.5], dtype=np.float32)
    wet = rooms.reverberate(samples, response)
    assert np.flatnonzero(np.abs(wet) > 1e-4).tolist() == [3000, 3002]
    assert np.sum(wet**2) == pytest.approx(0.25, rel=1e-4)
    assert wet[3002] / wet[3000] == pytest.approx(0.5, rel=1e-4)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=8000).astype(np.float32) * 0.1
    for _ in range(6):
        distorted = rooms.distort(noise, rng)
        assert distorted.shape == noise.shape and np.abs(distorted).max() <= 1
        assert 0.3 < abs(np.corrcoef(distorted, noise)[0, 1]) < 0.9999


def test_no_training_text_contains_a_longer_one_of_a_test():
    make = pytest.importorskip("make_speech")
    is_new = make.without(["press the key", "one two", "hold"])
    texts = ["now press the key", "press the keys", "compress the key", "one two three", "hold on"]
    kept = [text for text in texts if is_new(make.Utterance("id", text, ()))]
    assert kept == ["press the keys", "compress the key", "one two three", "hold on"]
