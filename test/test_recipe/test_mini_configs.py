"""The configs of the mini recipe: each builds the system that it is named after."""

from pathlib import Path

import pytest

from espnet_smop.config import load_config
from espnet_smop.tasks.avsr import AVSRTask

CONF = Path(__file__).resolve().parents[2] / "egs2" / "mini_lrs3" / "avsr_smop1" / "conf"
BOTH = ("audio", "video")
# name: experts by router (Figure 2 of the paper), fusion by modality
SYSTEMS = {
    "avsr_llama_avsr": ({}, {}),
    "avsr_llama_avsr_active": ({}, {}),
    "avsr_llama_avsr_total": ({}, {}),
    "avsr_dci": ({}, dict.fromkeys(BOTH, "DCI")),
    "avsr_mmfuser": ({}, dict.fromkeys(BOTH, "MMFuser")),
    "avsr_smop4_jejr": ({"joint": 4}, {}),
    "avsr_smop4_jedr": (dict.fromkeys(BOTH, 4), {}),
    "avsr_smop3_dedr": (dict.fromkeys(BOTH, 3), {}),
    "avsr_smop4_dedr": (dict.fromkeys(BOTH, 4), {}),
    "avsr_smop4v_dci_a": ({"video": 4}, {"audio": "DCI"}),
    "avsr_smop4v_mmfuser_a": ({"video": 4}, {"audio": "MMFuser"}),
    "asr_smop4": ({"audio": 4}, {}),
    "vsr_smop4": ({"video": 4}, {}),
    "asr_real": ({"audio": 4}, {}),
    "vsr_real": ({"video": 4}, {}),
    "avsr_real": (dict.fromkeys(BOTH, 3), {}),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_systems(name, model_args, tiny_whisper, tiny_avhubert, make_llm):
    config = load_config(CONF / f"train_{name}.yaml")
    parser = AVSRTask.get_parser()
    assert not config.keys() - {action.dest for action in parser._actions}
    keys = ("audio_frontend", "video_frontend", "projector", "projector_conf")
    tiny = {"audio": tiny_whisper, "video": tiny_avhubert}
    args = model_args(
        **{key: config[key] for key in keys},
        **{f"{m}_frontend_conf": {**config[f"{m}_frontend_conf"], "model": tiny[m]} for m in BOTH
           if config[f"{m}_frontend"] is not None},
        decoder_conf={**config["decoder_conf"], "model": make_llm("smollm")},
    )  # fmt: skip
    model = AVSRTask.build_model(args)
    routers, fusions = SYSTEMS[name]
    assert set(model.frontends) == {m for m in BOTH if m[0] in name.split("_")[0][:2]}
    found = {
        key.split(".")[-3] if "routers" in key else "joint": len(gate)
        for key, gate in model.projector.mixture.state_dict().items()
        if "gate" in key
    }
    assert found == routers
    kinds = {m: type(f).__name__ for m, f in model.projector.stem.fusions.items()}
    assert kinds == fusions
    assert model.projector.needs_layers == set(fusions)


def test_nothing_is_said_twice():
    base = load_config(CONF / "train_base.yaml")
    dense = {"projector": "mlp", "projector_conf": {**base["projector_conf"], "layer_norm": True}}
    assert load_config(CONF / "train_avsr_llama_avsr.yaml") == {**base, **dense}


@pytest.mark.parametrize("name, sparse", [("omni", False), ("omni_smop", True)])
def test_one_model_for_all_tasks(name, sparse, model_args, tiny_whisper, tiny_avhubert, make_llm):
    config = load_config(CONF / f"train_{name}.yaml")
    tiny = {"audio": tiny_whisper, "video": tiny_avhubert}
    model = AVSRTask.build_model(
        model_args(
            **{key: config[key] for key in ("projector", "projector_conf", "model_conf")},
            **{f"{m}_frontend_conf": {"model": tiny[m]} for m in BOTH},
            decoder_conf={**config["decoder_conf"], "model": make_llm("smollm")},
        )
    )
    assert model.views.tasks == ("asr", "vsr", "avsr") and model.views.vary
    assert set(model.projector.mixture.mixtures) == {"a4", "a8", "v2", "v4"}
    assert any("gate" in key for key in model.projector.state_dict()) == sparse
    adapters = {n.split(".")[-2] for n, _ in model.named_parameters() if ".lora_A." in n}
    assert adapters == {"asr", "vsr", "avsr", "shared"}
    lora = {"r": 16, "alpha": 16, "target_modules": 7}
    found = config["decoder_conf"]["lora"]
    assert {k: len(found[k]) if k == "target_modules" else found[k] for k in lora} == lora
