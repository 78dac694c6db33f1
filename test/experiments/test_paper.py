"""The file of experiments: which systems, which configs, which mistakes."""

from pathlib import Path

import pytest
import yaml

from espnet_smop.config import load_config
from espnet_smop.experiments.paper import PaperError, experiments, read, write_config

CONF = Path(__file__).parents[2] / "egs2/lrs3/avsr_smop1/conf"
SMALL = {
    "settings": {"one": {"seed": 1}, "two": {"seed": 2, "optim_conf": {"lr": 0.1}}, "eight": {}},
    "results": {
        "t": {
            "title": "T",
            "task": "avsr",
            "rows": {
                "A": {"settings": ["eight"], "paper": [1, None]},
                "B": {"task": "vsr", "settings": ["one"]},
            },
            "columns": {"x": {"settings": ["one"]}, "y": {"settings": ["two"], "snr": 2.50}},
        },
        "u": {
            "title": "U",
            "rows": {"C": {"task": "avsr", "settings": ["one"]}},
            "columns": {"z": {"settings": ["eight"], "snr": -5}},
        },
    },
}


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "a conf" / "paper.yaml"
    (path.parent / "machine").mkdir(parents=True)
    path.write_text(yaml.safe_dump(SMALL, sort_keys=False))
    (path.parent / "train_avsr.yaml").write_text("seed: 0\noptim_conf: {lr: 1, eps: 2}\n")
    (path.parent / "machine/m.yaml").write_text("batch_bins: 7\nseed: 9\n")
    return read(path)


def test_cells_join_row_and_column(small):
    cells = small.results["t"].rows["A"]
    assert [(c.experiment.name, c.snr, c.paper) for c in cells] == [
        ("avsr_one_eight", "clean", 1),
        ("avsr_two_eight", "2.5", None),
    ]
    assert small.results["t"].rows["B"][0].experiment.name == "vsr_one"


def test_the_same_settings_are_one_experiment_in_all_tables(small):
    found = experiments(small.results.values())
    assert {e.name: snrs for e, snrs in found.items()} == {
        "avsr_one_eight": ["clean", "-5"],
        "avsr_two_eight": ["2.5"],
        "vsr_one": ["clean"],
        "vsr_one_two": ["2.5"],
    }


def test_configs_lie_over_task_and_machine(small, tmp_path):
    experiment = small.results["t"].rows["A"][1].experiment
    path = write_config(small, experiment, "m", tmp_path / "exp" / "conf")
    assert path.name == "avsr_two_eight.yaml"
    assert load_config(path) == {
        "seed": 2,
        "batch_bins": 7,
        "optim_conf": {"lr": 0.1, "eps": 2},
    }
    with pytest.raises(PaperError, match="--machine is one of m"):
        write_config(small, experiment, "none", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rows": {"A": {"settings": ["nine"]}}},
            "row A, column x: nine is not among the settings",
        ),
        ({"rows": {"A": {"paper": [1]}}}, "row A: 1 numbers for 2 columns"),
        ({"rows": {"A": {"settngs": []}}}, "row A: unknown key settngs"),
        ({"task": "lipreading"}, "task is 'lipreading'"),
        ({"shows": "loss"}, "shows is 'loss'"),
        ({"columns": {}}, "no rows or no columns"),
        ({"columns": {"x": None}}, "row A, column x: is not a mapping"),
    ],
)
def test_mistakes_are_named(tmp_path, change, message):
    results = {"t": {**SMALL["results"]["t"], "rows": {"A": {}}, **change}}
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "results": results}, sort_keys=False))
    with pytest.raises(PaperError, match=message):
        read(path)


def test_the_papers_experiments():
    paper = read(CONF / "paper.yaml")
    table1 = paper.results["table1"]
    assert [len(row) for row in table1.rows.values()] == [3] * 8
    assert len({c.experiment for c in table1.cells()}) == 24
    published = {label: [c.paper for c in row] for label, row in table1.rows.items()}
    assert published["SMoP-3 DEDR"] == [3.31, 2.29, 0.96]
    # Noise is for the systems of the other tables: only they are trained.
    trained = {
        c.experiment for name in ("table1", "figure3_asr") for c in paper.results[name].cells()
    }
    assert {c.experiment for c in paper.results["table2"].cells()} <= trained
    four, *_ = paper.results["figure4"].rows["VSR"]
    assert four.experiment in {c.experiment for c in paper.results["figure3_vsr"].cells()}
    assert four.paper == 39.71


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DCI", {"fusion": {"audio": "dci", "video": "dci"}}),
        (
            "SMoP-4 JEDR",
            {
                "routing": "jedr",
                "num_experts": 4,
                "top_k": 2,
                "load_balancing_weight": 0.01,
                "router_z_weight": 0.001,
            },
        ),
    ],
)
def test_a_papers_system_in_full(tmp_path, name, expected):
    paper = read(CONF / "paper.yaml")
    cell = paper.results["table1"].rows[name][2]
    settings = load_config(write_config(paper, cell.experiment, "8x80gb", tmp_path))
    common = {"hidden_size": 2048, "downsample": {"mode": "stack", "audio": 3, "video": 3}}
    assert settings["projector_conf"] == common | expected
    assert settings["decoder_conf"] == {
        "model": "meta-llama/Llama-3.1-8B",
        "lora": {"r": 64, "alpha": 8, "target_modules": ["q_proj", "v_proj"]},
        "prompt": "Transcribe speech and video to text.",
    }
    assert settings["audio_frontend_conf"] == {"model": "openai/whisper-medium.en"}
    limits = (settings["batch_bins"], settings["batch_limits"], settings["accum_grad"])
    assert limits == (12000, {"frames": 8000, "text": 3000}, 1)


@pytest.mark.parametrize("machine", ["1x24gb", "1x80gb", "8x80gb"])
def test_the_schedule_follows_the_training_set(tmp_path, machine):
    paper = read(CONF / "paper.yaml")
    experiment = paper.results["figure3_vsr"].rows["DCI"][0].experiment
    settings = load_config(write_config(paper, experiment, machine, tmp_path, 340))
    assert settings["num_iters_per_epoch"] == 340 * settings["accum_grad"]
    # Ten epochs of 340 steps, and the same share of them to warm up as of 49,000.
    schedule = {"first_cycle_steps": 3400, "warmup_steps": 69, "max_lr": 5e-4, "min_lr": 1e-6}
    assert settings["scheduler_conf"] == schedule
    usual = load_config(write_config(paper, experiment, machine, tmp_path))
    again = load_config(write_config(paper, experiment, machine, tmp_path, 4900))
    assert again == usual


def test_every_machine_trains_alike():
    seen = set()
    for machine in sorted((CONF / "machine").glob("*.yaml")):
        settings = load_config(CONF / "train_base.yaml") | load_config(machine)
        limits = {"tokens": settings["batch_bins"], **settings["batch_limits"]}
        step = tuple(limit * settings["accum_grad"] for limit in limits.values())
        seen.add((step, settings["num_iters_per_epoch"] / settings["accum_grad"]))
    assert seen == {((12000, 8000, 3000), 4900.0)}
