"""Building a config's model for its shapes, with the real sizes of what it names."""

import logging
import re
from pathlib import Path

import pytest
import yaml

from espnet_smop.bin import paper
from espnet_smop.experiments import dry_run as dry_run_module
from espnet_smop.experiments.dry_run import DryRunError, dry_run
from espnet_smop.experiments.paper import read, write_config

CONF = Path(__file__).parents[2] / "egs2/lrs3/avsr_smop1/conf"


@pytest.fixture
def config(tmp_path):
    """A function that writes a config over one of the recipe's."""

    def config(task, **settings):
        path = tmp_path / "a conf" / "train.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({"base": str(CONF / f"train_{task}.yaml"), **settings}))
        return path

    return config


# Millions of trained parameters that the authors of Llama-AVSR state for their models with Whisper
# Medium, AV-HuBERT LARGE and Llama 3.1-8B.
@pytest.mark.parametrize(
    ("task", "rates", "millions"),
    [("asr", (3, 3), 42), ("vsr", (3, 3), 48), ("avsr", (4, 2), 57)],
)
def test_llama_avsr_trains_as_many_parameters_as_published(config, tmp_path, task, rates, millions):
    path = config(
        task,
        **({} if task == "vsr" else {"audio_frontend_conf": {"model": "openai/whisper-medium.en"}}),
        projector="mlp",
        projector_conf={"downsample": {"mode": "stack", "audio": rates[0], "video": rates[1]}},
        decoder_conf={"model": "meta-llama/Llama-3.1-8B"},
    )
    assert round(dry_run(path, tmp_path).trained / 1e6) == millions


def test_omni_avsr_trains_a_projector_for_each_rate_and_lora_for_each_task(tmp_path):
    found = dry_run(CONF / "train_omni_avsr.yaml", tmp_path)
    width, layers, r = 2048, 16, 64  # Llama 3.2-1B, whose values are 512 wide
    lora = layers * r * ((width + width) + (width + 512))
    projector = (1024 + 1) * 2048 + (2048 + 1) * width
    lips = 24 * 2 * r * (1024 + 1024)  # AV-HuBERT LARGE, on queries and values
    delimiters = 4 * width
    # Three tasks and what they share; two rates of two modalities
    assert found.trained == 4 * lora + 4 * projector + lips + delimiters
    assert (found.frames_per_step, found.steps) == (3000, 104000)
    assert found.hours_of_speech == pytest.approx(8 * 433, rel=0.01)


def test_steps_and_hours(config, tmp_path):
    found = dry_run(config("asr"), tmp_path)
    assert found.bases == {
        "audio_frontend": "openai/whisper-base.en",
        "decoder": "meta-llama/Llama-3.2-1B",
    }
    assert (found.frames_per_step, found.steps) == (8000, 49000)
    # About ten passes over the corpus.
    assert found.hours_of_speech == pytest.approx(4330, rel=0.01)
    assert found.training_hours(100) == pytest.approx(found.hours_of_speech / 100)
    assert found.state_bytes == 2 * found.frozen + 16 * found.trained
    assert f"{found.trained:,}" in found.table
    # The fifth batch of an epoch is no step of two.
    odd = {"num_iters_per_epoch": 5, "accum_grad": 2, "max_epoch": 3}
    cycle = {"first_cycle_steps": 6, "warmup_steps": 1}
    assert dry_run(config("asr", **odd, scheduler_conf=cycle), tmp_path).steps == 6


def test_the_public_codes_settings_hold_over_this_recipes_base(tmp_path):
    found = dry_run(CONF / "train_avsr_smop4_jejr_reference.yaml", tmp_path)
    assert found.bases["audio_frontend"] == "openai/whisper-medium.en"
    assert (found.frames_per_step, found.steps) == (8000, 49000)


# 17.0 of state; 6,000 positions x 32 layers x (16 x 4096 + 6 x 14336) bytes = 27.0;
# their LoRA inputs, 6,000 x 64 x 2 x (4096 + 64) = 3.0; 1,500 x 16 x 128256 = 2.9
GIB_8B = "49.9"


def rows_of(text):
    """Return the rows of the dry run's table: name of the column → cell."""
    header, _, *lines = text.partition("\n\n")[0].splitlines()
    names, *cells = (re.split(r"\s{2,}", line.strip()) for line in (header, *lines))
    return [dict(zip(names, row, strict=True)) for row in cells]


def test_hours_at_a_measured_throughput(tmp_path, capsys):
    paper.main([
        "dry_run", str(CONF / "paper.yaml"), "table1", "--expdir", str(tmp_path),
        "--only", "llama_avsr_whisper_base", "--throughput", "llama3.2_1b=50",
    ])  # fmt: skip
    assert logging.getLogger().isEnabledFor(logging.WARNING)
    text = capsys.readouterr().out
    *_, table, last = text.splitlines()
    assert [row["hours"] for row in rows_of(text)] == ["87", "–"]  # 49,000 steps of 320 s
    total = "2 to train, 87 hours for the 1 with a --throughput"
    assert table == f"table1: {total}"
    valid = "2 experiments, all configs valid."
    assert last == f"{valid} Total, counting shared experiments once: {total}"


def test_a_row_says_what_fits_and_what_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("LRS3", raising=False)
    monkeypatch.setattr(dry_run_module, "get_token", lambda: None)
    monkeypatch.setattr(dry_run_module.torch.cuda, "is_available", lambda: False)
    places = ["--expdir", str(tmp_path), "--dumpdir", str(tmp_path)]
    only = ["table1", "--only", "llama_avsr_whisper_medium"]
    command = ["dry_run", str(CONF / "paper.yaml"), *only, *places]
    paper.main(command)
    text = capsys.readouterr().out
    (row,) = rows_of(text)
    assert row == {
        "experiment": "avsr_llama_avsr_whisper_medium_llama3.1_8b", "trained M": "56.7",
        "state GiB": "17.0", "GiB": GIB_8B, "fits": "80", "training": "train",
        "to decode": "clean", "missing here": "LRS3, AV-HuBERT, token, GPU",
    }  # fmt: skip
    assert "token: accept Llama's licence" in text
    assert "parameters" not in text

    monkeypatch.setenv("LRS3", str(tmp_path))
    monkeypatch.setattr(dry_run_module, "get_token", lambda: "a token")
    monkeypatch.setattr(dry_run_module.torch.cuda, "is_available", lambda: True)
    paper.main([*command, "--verbose", "true"])
    text = capsys.readouterr().out
    assert text.splitlines()[-5].endswith("AV-HuBERT")
    assert "frontends.video    324,622,976" in text


def test_published_numbers_of_experts_grow_the_projector_alone(tmp_path):
    experiments = read(CONF / "paper.yaml")
    four, eight, *_ = (
        dry_run(write_config(experiments, cell.experiment, "1x24gb", tmp_path), tmp_path)
        for cell in experiments.results["figure4"].rows["VSR"]
    )
    # 3 x 1024 -> 2048 -> 3072, biases, LayerNorm, and a row of the router
    expert = 3072 * 2048 + 2048 + 2048 * 3072 + 3 * 3072 + 3072
    assert eight.trained - four.trained == 4 * expert
    assert eight.frozen == four.frozen


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"projector_conf": {"routing": "both"}}, "routing is 'both'"),
        ({"projector_conf": {"experts": 4}}, "projector_conf has an unknown key 'experts'"),
        ({"scheduler_conf": {"warm_steps": 4}}, "warm_steps"),
        ({"optim_conf": {"rate": 4}}, "rate"),
        ({"max_epoch": 20}, "first_cycle_steps is 49000, but .* is 98000"),
        ({"batch_type": "sorted"}, "batch_limits.frames, or batch_type: numel"),
        ({"num_iters_per_epoch": None}, "only with num_iters_per_epoch"),
        ({"projecter": "smop"}, "training would refuse it"),
    ],
)
def test_a_config_that_would_fail_is_refused(config, tmp_path, settings, message):
    with pytest.raises(DryRunError, match=message):
        dry_run(config("asr", **settings), tmp_path)


def test_a_config_with_an_error_does_not_hide_the_others(tmp_path, capsys, monkeypatch):
    def fail_without_llama_avsr(config, skeletons, *, gpus):
        if "llama_avsr" not in Path(config).name:
            raise DryRunError("a mistake in it")
        return dry_run(config, skeletons, gpus=gpus)

    monkeypatch.setattr(dry_run_module, "dry_run", fail_without_llama_avsr)
    command = ["dry_run", str(CONF / "paper.yaml"), "table1", "--expdir", str(tmp_path)]
    assert paper.main([*command, "--only", "whisper_base"]) == 1
    out, err = capsys.readouterr()
    assert 0 < len(rows_of(out)) < len(rows_of(out)) + err.count(": a mistake in it")
    assert f"{err.count(': a mistake')} configs with errors" in out
