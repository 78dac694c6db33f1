"""The LRS3 recipe on look-alikes of LRS3, in the three forms in which it is passed on.

The mini corpus' generator makes them and knows what is said when.
"""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_SECONDS = 4.0
FRAME = 0.04

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def recipe(clone_with_tiny_models):
    """A copy of the LRS3 recipe whose config names tiny base models with random weights."""
    return clone_with_tiny_models("lrs3")


def make(recipe, form, out):
    make_corpus = "../../mini_lrs3/avsr_smop1/local/make_corpus.py"
    recipe.run(sys.executable, make_corpus, "--out", out, "--form", form,
               "--size", "pretraining_smoke")  # fmt: skip
    return [json.loads(line) for line in (out / "truth.jsonl").read_text().splitlines()]


def table(path):
    rows = (line.partition(" ") for line in path.read_text().splitlines())
    return {key: value for key, _, value in rows}


@pytest.fixture(scope="module", params=["raw", "auto_avsr", "avhubert"])
def prepared(request, recipe):
    """Form, truth and directory names after all stages."""
    form = request.param
    corpus = recipe.dir / "downloads" / f"the {form} corpus"
    truth = make(recipe, form, corpus)
    dirs = {f"{kind}dir": f"{kind}_{form}" for kind in ("data", "dump", "exp")}
    (recipe.dir / "db.sh").unlink()
    (recipe.dir / "db.sh").write_text(f"# shellcheck shell=bash\nLRS3='{corpus}'\n")
    output = recipe.run(
        "./run.sh", "--stop_stage", "13", *(x for k, v in dirs.items() for x in (f"--{k}", v)),
        "--local_data_opts", f"--max_seconds {MAX_SECONDS:g}",
        "--avsr_config", "conf/train_tiny.yaml", "--inference_config", "conf/decode_tiny.yaml",
        "--babble_utts", "10", "--snrs", "clean 0", "--ngpu", "0", "--gpu_inference", "false",
        "--nj", "2", "--inference_nj", "2",
    )  # fmt: skip
    return form, truth, {name: recipe.dir / path for name, path in dirs.items()}, output


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
