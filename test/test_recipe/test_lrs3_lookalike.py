"""The LRS3 recipe on look-alikes of LRS3, in the three forms in which it is passed on.

The mini corpus' generator makes them and knows what is said when.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import WhisperConfig, WhisperModel

ROOT = Path(__file__).resolve().parents[2]
MAX_SECONDS = 4.0
FRAME = 0.04

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, make_llm, tiny_avhubert):
    """A copy of the LRS3 recipe whose config names tiny base models with random weights."""
    egs2 = tmp_path_factory.mktemp("a clone") / "egs2"
    ignored = shutil.ignore_patterns("data", "dump", "exp", "downloads")
    shutil.copytree(ROOT / "egs2", egs2, symlinks=True, ignore=ignored)
    directory = egs2 / "lrs3" / "avsr_smop1"
    torch.manual_seed(1)
    names = (
        "encoder_layers",
        "decoder_layers",
        "encoder_attention_heads",
        "decoder_attention_heads",
    )
    sizes = dict.fromkeys(names, 1)
    whisper = WhisperModel(WhisperConfig(
        d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=20, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, **sizes,
    ))  # fmt: skip
    whisper.save_pretrained(directory / "downloads/whisper")
    settings = {
        "base": "train_avsr.yaml",
        "audio_frontend_conf": {"model": "downloads/whisper"},
        "video_frontend_conf": {"model": tiny_avhubert},
        "decoder_conf": {"model": make_llm("llama3"), "lora": {"r": 2}},
        "projector_conf": {"hidden_size": 16},
        "batch_bins": 4000,
        "batch_limits": {"frames": 600},
        "accum_grad": 1,
        "num_workers": 0,
        "num_iters_per_epoch": 2,
        "max_epoch": 1,
        "scheduler_conf": {"first_cycle_steps": 2, "warmup_steps": 1},
        "use_amp": False,
    }
    (directory / "conf/train_tiny.yaml").write_text(yaml.safe_dump(settings))
    (directory / "conf/decode_tiny.yaml").write_text("{beam_size: 2, max_new_tokens: 4}\n")
    return directory


def environment():
    python_path = [str(ROOT), str(ROOT / "egs2/synthesis"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "ESPNET_SMOP_PYTHON": sys.executable,
        "PYTHONPATH": ":".join(filter(None, python_path)),
    }


def run(*command, cwd):
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=environment(), capture_output=True, text=True,
        timeout=3000,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return done.stdout


def make(recipe, form, out):
    mini = recipe.parents[1] / "mini_lrs3/avsr_smop1"
    run(sys.executable, "local/make_corpus.py", "--out", out, "--form", form,
        "--size", "pretraining_smoke", cwd=mini)  # fmt: skip
    return [json.loads(line) for line in (out / "truth.jsonl").read_text().splitlines()]


def table(path):
    rows = (line.partition(" ") for line in path.read_text().splitlines())
    return {key: value for key, _, value in rows}


@pytest.fixture(scope="module", params=["raw", "auto_avsr", "avhubert"])
def prepared(request, recipe):
    """Form, truth and directory names after all stages."""
    form = request.param
    corpus = recipe / "downloads" / f"the {form} corpus"
    truth = make(recipe, form, corpus)
    dirs = {f"{kind}dir": f"{kind}_{form}" for kind in ("data", "dump", "exp")}
    (recipe / "db.sh").unlink()
    (recipe / "db.sh").write_text(f"# shellcheck shell=bash\nLRS3='{corpus}'\n")
    output = run(
        "./run.sh", "--stop_stage", "13", *(x for k, v in dirs.items() for x in (f"--{k}", v)),
        "--local_data_opts", f"--max_seconds {MAX_SECONDS:g}",
        "--avsr_config", "conf/train_tiny.yaml", "--inference_config", "conf/decode_tiny.yaml",
        "--babble_utts", "10", "--snrs", "clean 0", "--ngpu", "0", "--gpu_inference", "false",
        "--nj", "2", "--inference_nj", "2", cwd=recipe,
    )  # fmt: skip
    return form, truth, {name: recipe / path for name, path in dirs.items()}, output


def test_every_clip_arrives_with_its_text(prepared):
    form, truth, dirs, output = prepared
    words = {"raw": "as distributed", "auto_avsr": "auto_avsr's", "avhubert": "AV-HuBERT's"}
    assert words[form] in output
    data = {s: table(dirs["datadir"] / s / "text") for s in ("train", "valid", "test")}
    speakers = {s: set(table(dirs["datadir"] / s / "utt2spk").values()) for s in data}
    assert not speakers["train"] & speakers["valid"]
    clips = {}
    for row in truth:
        part, speaker, number = row["clip"].split("/")
        suffix = "_00" if (form, part) == ("auto_avsr", "pretrain") else ""
        name = f"{speaker}_pretrain" if part == "pretrain" else speaker
        clips[f"{name}_{number}{suffix}"] = row
    seen = {}
    for part, texts in data.items():
        for utterance, text in texts.items():
            whole = utterance if utterance in clips else utterance.rsplit("_", 2)[0]
            assert (part == "test") == (clips[whole]["split"] == "test")
            seen.setdefault(whole, []).append(text)
    # In Kaldi's order a clip's pieces follow each other, so nothing is lost, doubled or moved.
    assert {clip: " ".join(texts) for clip, texts in seen.items()} == {
        clip: row["text"] for clip, row in clips.items() if clip in seen
    }
    # By default whole speakers validate, and their pretrain clips are left out.
    left_out = clips.keys() - seen.keys()
    assert {clips[c]["speaker"] for c in left_out} <= speakers["valid"]
    assert all("_pretrain_" in c for c in left_out)
    assert len(data["test"]) == sum(row["split"] == "test" for row in truth)


def test_cut_points_and_words_of_the_raw_form(prepared):
    form, truth, dirs, _ = prepared
    if form != "raw":
        pytest.skip("the other forms are cut already")
    by_clip = {row["clip"]: row for row in truth}
    texts = table(dirs["datadir"] / "train" / "text")
    frames = {k: int(v) for k, v in table(dirs["dumpdir"] / "raw/org/train/utt2num_frames").items()}
    cut = 0
    for utterance, segment in table(dirs["datadir"] / "train" / "segments").items():
        recording, start, end = segment.split()
        speaker, *pretrain, number = recording.split("_")
        row = by_clip[f"{'pretrain' if pretrain else 'trainval'}/{speaker}/{number}"]
        if end == "-1":
            assert texts[utterance] == row["text"]
            assert frames[utterance] == row["frames"] <= MAX_SECONDS / FRAME + 12
            continue
        cut += 1
        start, end = float(start), float(end)
        inside = [w for w in row["words"] if start - FRAME <= w[1] and w[2] <= end + FRAME]
        assert texts[utterance].split() == [w[0].lower() for w in inside]
        # No word is cut: all others lie outside, to within a frame.
        others = [w for w in row["words"] if w not in inside]
        assert all(w[2] <= start + FRAME or w[1] >= end - FRAME for w in others)
        assert end - start <= MAX_SECONDS + 1e-6
        assert frames[utterance] == min(round((end - start) / FRAME),
                                        row["frames"] - round(start / FRAME))  # fmt: skip
    assert cut >= 4


def test_results_of_all_sets_at_all_noise_levels(prepared):
    _, _, dirs, _ = prepared
    exp = dirs["expdir"] / "avsr_train_tiny"
    ids = list(table(dirs["datadir"] / "test" / "text"))
    for name in ("test", "test_babble_snr0"):
        decode = exp / "decode_tiny_avsr_model_valid.acc.ave" / name
        assert list(table(decode / "text")) == ids
        assert (decode / "score_wer/result.txt").read_text().count("Sum/Avg") == 1
    assert "test_babble_snr0" in (exp / "RESULTS.md").read_text()


def test_no_stage_stands_in_both_recipes():
    """The mini recipe has no stage 1 of its own, and both link to one driver."""
    mini = ROOT / "egs2/mini_lrs3/avsr_smop1"
    assert "lrs3/avsr_smop1/local/data.sh" in (mini / "local/data.sh").read_text()
    assert (mini / "avsr_smop.sh").resolve() == (
        ROOT / "egs2/lrs3/avsr_smop1/avsr_smop.sh"
    ).resolve()
    for name in ("local/data.sh", "run.sh"):
        ours = (ROOT / "egs2/lrs3/avsr_smop1" / name).read_text().splitlines()
        theirs = (mini / name).read_text().splitlines()
        commands = {line.strip() for line in ours if "espnet_smop.bin" in line}
        assert not commands & {line.strip() for line in theirs}
