import io
import sys

import pytest
import torch
import yaml

from espnet_smop.base_model import BaseModelError
from espnet_smop.decoder.prompt import prompt_for
from espnet_smop.tasks.avsr import AVSRTask, trained_table


def test_print_config_lists_every_class_and_its_options(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["avsr_train"])  # ESPnet reads it, pytest's options else
    printed = io.StringIO()
    AVSRTask.print_config(file=printed)
    config = yaml.safe_load(printed.getvalue())
    assert config["audio_frontend"] == "whisper"
    assert config["audio_frontend_conf"]["padding"] == "longest"
    assert config["video_frontend"] == "avhubert"
    assert config["projector"] == "smop"
    assert config["projector_conf"]["routing"] == "dedr"
    assert config["projector_conf"]["top_k"] == 2
    assert config["decoder"] == "llm"
    assert config["decoder_conf"]["lora"]["target_modules"] == ["q_proj", "v_proj"]
    assert config["preprocessor_conf"]["random_crop"] is True


def test_help_names_the_choices():
    text = AVSRTask.get_parser().format_help()
    for choice in ("{whisper,null,", "{avhubert,null,", "{mlp,smop,module:Class}", "{llm,"):
        assert choice in text


@pytest.mark.parametrize(
    ("modalities", "prompt"),
    [
        (("audio",), "Transcribe speech to text."),
        (("video",), "Transcribe video to text."),
        (("audio", "video"), "Transcribe speech and video to text."),
    ],
)
def test_the_prompt_fits_the_modalities_and_is_kept_in_the_config(model_args, modalities, prompt):
    changes = {f"{m}_frontend": None for m in {"audio", "video"} - set(modalities)}
    args = model_args(**changes)
    model = AVSRTask.build_model(args)
    assert model.decoder.prompt == prompt
    assert args.decoder_conf["prompt"] == prompt
    assert set(model.frontends) == set(modalities)


def test_several_tasks_have_a_prompt_each(model_args):
    args = model_args(model_conf={"tasks": {"vsr": 1.0, "avsr": 1.0}})
    model = AVSRTask.build_model(args)
    assert args.decoder_conf["prompt"] == {
        "vsr": "Transcribe video to text.", "avsr": "Transcribe speech and video to text.",
    }  # fmt: skip
    lengths = {m: model.decoder.prompt_length(m) for m in (("video",), ("audio", "video"))}
    words = {m: len(model.decoder.tokenizer(prompt_for(m)).input_ids) for m in lengths}
    bos = 1
    assert lengths == {m: words[m] + 2 * len(m) + bos for m in lengths}


def test_the_config_names_the_bases_and_refuses_others(model_args, make_llm):
    args = model_args()
    AVSRTask.build_model(args)
    assert set(args.base_fingerprints) == {
        "audio_frontend.whisper",
        "video_frontend.avhubert",
        "decoder.llm",
        "decoder.tokenizer",
    }
    AVSRTask.build_model(args)  # the same bases are fine
    args.decoder_conf = {**args.decoder_conf, "model": make_llm("llama3")}
    with pytest.raises(BaseModelError, match=r"decoder.llm \(expected .*, found .*config.yaml"):
        AVSRTask.build_model(args)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"projector_conf": {"routng": "jejr"}}, "unknown key 'routng'. Did you mean 'routing'"),
        ({"decoder_conf": {"lora": None}}, "decoder_conf lacks a key: .*model"),
        ({"audio_frontend": None, "video_frontend": None}, "audio_frontend .*video_frontend"),
    ],
)
def test_mistakes_in_a_config_are_explained(model_args, changes, message):
    with pytest.raises(ValueError, match=message):
        AVSRTask.build_model(model_args(**changes))


def test_the_table_of_trained_parameters_adds_up(model_args):
    model = AVSRTask.build_model(model_args())
    *rows, total = trained_table(model).splitlines()[2:]
    trained = sum(int(row.split()[2].replace(",", "")) for row in rows)
    assert trained == int(total.split()[2].replace(",", ""))
    assert trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert [row.split()[0] for row in rows] == [
        "frontends.audio",
        "frontends.video",
        "projector",
        "decoder",
    ]
    assert [row.split()[2] for row in rows[:2]] == ["0", "0"]


def test_load_model_accepts_no_missing_key(model_args, tmp_path):
    args = model_args()
    state = AVSRTask.build_model(args).state_dict()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    torch.save(state, tmp_path / "good.pth")
    model, _ = AVSRTask.load_model(str(tmp_path / "config.yaml"), str(tmp_path / "good.pth"))
    assert not model.training
    state.popitem()
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(RuntimeError, match="missing"):
        AVSRTask.load_model(str(tmp_path / "config.yaml"), str(tmp_path / "bad.pth"))
