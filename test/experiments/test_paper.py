"""The file of experiments: which systems, which configs, which mistakes."""

from pathlib import Path

import pytest
import torch
import yaml

from espnet_smop.config import load_config
from espnet_smop.experiments.paper import PaperError, calls, experiments, read, write_config
from espnet_smop.skeleton import use_skeletons
from espnet_smop.tasks.avsr import AVSRTask

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
    assert [(c.experiment.name, c.decoding.snr, c.paper) for c in cells] == [
        ("avsr_one_eight", "clean", 1),
        ("avsr_two_eight", "2.5", None),
    ]
    assert small.results["t"].rows["B"][0].experiment.name == "vsr_one"


def test_the_same_settings_are_one_experiment_in_all_tables(small):
    found = experiments(small.results.values())
    assert {e.name: [d.snr for d in decodings] for e, decodings in found.items()} == {
        "avsr_one_eight": ["clean", "-5"],
        "avsr_two_eight": ["2.5"],
        "vsr_one": ["clean"],
        "vsr_one_two": ["clean"],  # lips are the same whatever the noise
    }


def test_models_of_several_tasks_and_rates(tmp_path):
    rates = {"audio": 4, "video": 2}
    columns = {
        "ASR": {"task": "asr", "rates": {"audio": 4}},
        "VSR": {"task": "vsr", "rates": {"video": 2}},
        "AVSR": {"task": "avsr", "rates": rates},
        "noise": {"task": "avsr", "rates": rates, "snr": 0},
    }
    rows = {
        "all": {"config": "omni", "settings": ["one"]},
        "each": {"by_column": [["two"], [], ["one"], ["one"]], "paper": [1, 2, 3, 4]},
    }
    table = {"title": "T", "rows": rows, "columns": columns}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(
        {"machines": "m", "settings": {"one": {"seed": 1}, "two": {}}, "results": {}}
    ))  # fmt: skip
    path = tmp_path / "paper.yaml"
    content = {"base": "settings.yaml", "results": {"t": table}}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    (tmp_path / "m").mkdir()
    (tmp_path / "m/gpu.yaml").write_text("batch_bins: 7\n")
    (tmp_path / "train_omni.yaml").write_text("seed: 0\n")

    paper = read(path)
    found = experiments(paper.results.values())
    omni, *single = found
    assert omni.name == "omni_one"
    assert calls(found[omni]) == [
        (["clean"], ["asr:4", "vsr:2"]),
        (["clean", "0"], ["avsr:4,2"]),
    ]
    assert [d.tag("decode") for d in found[omni][1:3]] == ["decode_vsr_v2", "decode_avsr_a4_v2"]
    assert [(e.name, calls(found[e])) for e in single] == [
        ("asr_two", [(["clean"], ["asr:4"])]),
        ("vsr", [(["clean"], ["vsr:2"])]),
        ("avsr_one", [(["clean", "0"], ["avsr:4,2"])]),
    ]
    config = write_config(paper, omni, "gpu", tmp_path / "exp")
    assert load_config(config) == {"seed": 1, "batch_bins": 7}


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
        ({"rows": {"A": {"by_column": [["one"]]}}}, "row A: 1 lists of settings for 2 columns"),
        ({"columns": {"x": {"rates": {"video": 2}}}}, "rates are of video, but the task is avsr"),
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


def test_the_papers_of_several_rates():
    omni = read(CONF / "paper_omni_avsr.yaml").results["table1"]
    assert {len(row) for row in omni.rows.values()} == {8}
    published = {label: [c.paper for c in row] for label, row in omni.rows.items()}
    # The means that the paper prints beside them
    means = {label: round(sum(row) / 8, 1) for label, row in published.items()}
    assert means == {
        "Llama-AVSR": 8.3, "Llama-MTSK": 8.0, "Llama-MT": 8.0,
        "Omni-AVSR-S": 7.9, "Omni-AVSR-T": 8.0, "Omni-AVSR-ST": 7.9,
    }  # fmt: skip
    trained = {label: len({c.experiment for c in row}) for label, row in omni.rows.items()}
    assert trained == {
        "Llama-AVSR": 8, "Llama-MTSK": 3, "Llama-MT": 4,
        "Omni-AVSR-S": 1, "Omni-AVSR-T": 1, "Omni-AVSR-ST": 1,
    }  # fmt: skip
    mtsk = read(CONF / "paper_llama_mtsk.yaml").results["table1"]
    mome = read(CONF / "paper_mome.yaml").results["table1"]
    assert mtsk.rows.items() <= mome.rows.items()
    assert [c.paper for c in mome.rows["MoME-23/4-MHSA"]] == [1.8, 1.7, 2.9, 2.9]


@pytest.mark.parametrize(
    ("label", "millions"),
    # Active parameters in MoME's Table 1
    [("Llama-MTSK SS", 27.5), ("Llama-MTSK MSS", 55.0), ("MoME-23/4-MHSA", 12.7)],
)
def test_active_parameters_are_the_published_ones(tmp_path, label, millions):
    paper = read(CONF / "paper_mome.yaml")
    [experiment] = {c.experiment for c in paper.results["table1"].rows[label]}
    config = write_config(paper, experiment, "1x80gb", tmp_path)
    args = AVSRTask.get_parser().parse_args(["--config", str(config)])
    use_skeletons(args, tmp_path)
    with torch.device("meta"):
        model = AVSRTask.build_model(args)
    parts = {n: p for n, p in model.decoder.named_parameters() if p.requires_grad}
    active = 0.0
    for name, parameter in parts.items():
        if ".experts." in name:  # four of the routed ones
            active += 4 / 23 * parameter.numel()
        elif "lora_" not in name or ".a4_v2." in name or ".shared." in name:
            active += parameter.numel() * ("delimiters" not in name)
    assert active / 1e6 == pytest.approx(millions, abs=0.06)


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


@pytest.mark.parametrize(
    ("base", "machines", "step", "steps"),
    [
        ("train_base", "machine", (12000, 8000, 3000), 4900),
        ("train_views", "machine_views", (15000, 3000, 1120), 13000),
    ],
)
def test_every_machine_trains_alike(base, machines, step, steps):
    seen = set()
    for machine in [CONF / f"{base}.yaml", *(CONF / machines).glob("*.yaml")]:
        settings = load_config(CONF / f"{base}.yaml") | load_config(machine)
        limits = {"tokens": settings["batch_bins"], **settings["batch_limits"]}
        own = tuple(limit * settings["accum_grad"] for limit in limits.values())
        assert own == step
        seen.add(settings["num_iters_per_epoch"] / settings["accum_grad"])
    assert seen == {steps}
