"""The LRS2 recipe: its configs, and a look-alike of LRS2 from stage 1 to a table of results."""

import json
from pathlib import Path

import pytest

from espnet_smop.config import load_config
from espnet_smop.fileio.table import read_table
from talking_face.corpus import Settings, Size, make
from talking_face.difficulty import Difficulty

EGS2 = Path(__file__).resolve().parents[2] / "egs2"
CONF, LRS3 = (EGS2 / corpus / "avsr_smop1/conf" for corpus in ("lrs2", "lrs3"))
SIZE = Size(
    pretrain=8, train=10, valid=3, test=4, long=2, joined=3, pretrainers=2, speakers=(3, 2, 2)
)
SCHEDULE = {"num_iters_per_epoch", "scheduler_conf"}


@pytest.mark.parametrize("task", ["asr", "vsr", "avsr"])
def test_configs_are_those_of_lrs3_with_another_schedule(task):
    ours, theirs = (load_config(conf / f"train_{task}.yaml") for conf in (CONF, LRS3))
    assert {key for key in ours if ours[key] != theirs[key]} == SCHEDULE
    assert ours.keys() == theirs.keys()
    ours, theirs = ours["scheduler_conf"], theirs["scheduler_conf"]
    assert {key for key in ours if ours[key] != theirs[key]} == {
        "first_cycle_steps",
        "warmup_steps",
    }


@pytest.mark.parametrize("machine", [None, "1x24gb", "8x80gb"])
def test_the_schedule_is_as_long_as_the_training(machine, tmp_path):
    bases = [CONF / "train_avsr.yaml", *([CONF / f"machine/{machine}.yaml"] if machine else [])]
    (tmp_path / "train.yaml").write_text(f"base: {[str(base) for base in bases]}\n")
    config = load_config(tmp_path / "train.yaml")
    steps = config["max_epoch"] * config["num_iters_per_epoch"] / config["accum_grad"]
    assert config["scheduler_conf"]["first_cycle_steps"] == steps
    # A step sees as many frames on each machine.
    assert config["batch_limits"]["frames"] * config["accum_grad"] == 8000
    hours = config["num_iters_per_epoch"] * config["batch_limits"]["frames"] / 25 / 3600
    assert hours == pytest.approx(223, rel=0.01)


def _id(clip):
    """Return the recording id of a clip of the generator's plan."""
    part, speaker, number = clip.split("/")
    return f"{speaker}_pretrain_{number}" if part == "pretrain" else f"{speaker}_{number}"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_from_the_corpus_to_results(clone_with_tiny_models):
    recipe = clone_with_tiny_models("lrs2")
    corpus = recipe.dir / "downloads" / "the corpus"
    make(corpus, Settings(size=SIZE, seed=5, difficulty=Difficulty(), form="lrs2"), jobs=1)
    truth = [json.loads(line) for line in (corpus / "truth.jsonl").read_text().splitlines()]
    listed = (corpus / "test.txt").read_text().splitlines()
    assert listed == [f"{r['clip'].partition('/')[2]} NF" for r in truth if r["split"] == "test"]

    (recipe.dir / "db.sh").unlink()
    (recipe.dir / "db.sh").write_text(f"# shellcheck shell=bash\nLRS2='{corpus}'\n")
    output = recipe.run(
        "./run.sh", "--stop_stage", "13", "--local_data_opts", "--max_seconds 4",
        "--avsr_config", "conf/train_tiny.yaml", "--inference_config", "conf/decode_tiny.yaml",
        "--babble_utts", "10", "--snrs", "0", "--ngpu", "0", "--gpu_inference", "false",
        "--nj", "1", "--inference_nj", "1",
    )  # fmt: skip
    assert "LRS2 as distributed" in output
    said: dict[str, str] = {}
    for name in ("train", "valid", "test"):
        data = recipe.dir / "data" / name
        texts = read_table(data / "text")
        cut = read_table(data / "segments") if name == "train" else {}
        for utterance, text in sorted(texts.items()):
            clip = cut.get(utterance, utterance).split()[0]
            said[clip] = f"{said.get(clip, '')} {text}".strip()
        splits = {row["speaker"]: row["split"] for row in truth}
        assert {splits[s] for s in read_table(data / "utt2spk").values()} == {name}
        formatted = "test" if name == "test" else f"org/{name}"
        frames = read_table(recipe.dir / "dump/raw" / formatted / "utt2num_frames")
        assert set(frames) == set(texts)
    pieces = [u for u in read_table(recipe.dir / "data/train/text") if u not in said]
    assert len(pieces) >= 4 and all("_pretrain_" in u for u in pieces)
    assert said == {_id(row["clip"]): row["text"] for row in truth}
    shapes = read_table(recipe.dir / "exp/avsr_stats/train/duration_shape")
    assert set(shapes) == set(read_table(recipe.dir / "dump/raw/train/text"))
    decoded = recipe.dir / "exp/avsr_train_tiny/decode_tiny_avsr_model_valid.acc.ave"
    assert (decoded / "test_babble_snr0/score_wer/result.txt").read_text().count("Sum/Avg") == 1
