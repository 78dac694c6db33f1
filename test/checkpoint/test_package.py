import json
import os
import shutil
import stat
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from espnet_smop.base_model import BaseModelError
from espnet_smop.bin.package import main as package_main
from espnet_smop.checkpoint import archive
from espnet_smop.checkpoint.archive import PackageError, extract
from espnet_smop.checkpoint.package import open_package, pack
from espnet_smop.config import ConfigError
from espnet_smop.inference import DEFAULTS, AVSRSpeech2Text
from espnet_smop.tasks.avsr import AVSRTask

RESULTS = """# RESULTS
## exp/avsr
### WER

|dataset|Snt|
|---|---|
|decode/test|600|
"""


@pytest.fixture
def experiment(model_args, tmp_path):
    args = model_args(
        preprocessor_conf={"noise": {"file": "/home/me/noise.wav", "snr": [0]}},
        output_dir="/home/me/exp", seed=7,
        train_data_path_and_name_and_type=[["/home/me/wav.scp", "speech", "sound"]],
    )  # fmt: skip
    torch.manual_seed(0)
    model = AVSRTask.build_model(args)
    exp = tmp_path / "exp" / "avsr"
    exp.mkdir(parents=True)
    (exp / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    (exp / "RESULTS.md").write_text(RESULTS)
    torch.save(model.state_dict(), exp / "valid.acc.ave.pth")
    return exp


@pytest.fixture
def utterance():
    rng = np.random.default_rng(0)
    return {
        "speech": rng.normal(size=25 * 640).astype(np.float32),
        "video": rng.integers(0, 255, (25, 96, 96), dtype=np.uint8),
    }


SEARCH = {"beam_size": 2, "max_new_tokens": 8}


def from_experiment(experiment, **options):
    return AVSRSpeech2Text(
        experiment / "config.yaml", experiment / "valid.acc.ave.pth", **{**SEARCH, **options}
    )


@pytest.mark.parametrize("name", ["packed.zip", "a packed directory"])
@pytest.mark.parametrize("bases", [False, True])
def test_a_package_recognises_what_the_experiment_does(
    experiment, utterance, tmp_path, monkeypatch, name, bases
):
    expected = from_experiment(experiment)(**utterance)
    out = pack(experiment, "valid.acc.ave.pth", tmp_path / name, include_bases=bases)
    # Neither the experiment nor the working directory is needed any more.
    experiment.rename(tmp_path / "gone")
    monkeypatch.chdir(tmp_path / "gone")
    speech2text = AVSRSpeech2Text.from_pretrained(out, **SEARCH)
    assert speech2text(**utterance) == expected
    with open_package(out) as directory:
        assert (directory / "bases").exists() == bases
        held = (directory / "config.yaml").read_text()
    assert ("bases/llm" in held) == bases
    assert "/home/me" not in held  # neither data nor noise of the training machine


def test_what_is_in_it(experiment, tmp_path):
    (tmp_path / "decode.yaml").write_text("beam_size: 4\nlength_penalty: 0.5\nbatch_size: 16\n")
    package_main(
        [
            "pack",
            *("--exp", str(experiment), "--out", str(tmp_path / "p"), "--license", "mit"),
            *("--inference_config", str(tmp_path / "decode.yaml"), "--name", "A model"),
        ]
    )
    files = {str(p.relative_to(tmp_path / "p")) for p in (tmp_path / "p").rglob("*")}
    assert {
        "config.yaml", "model.safetensors", "tokenizer/tokenizer.json", "prompts.json",
        "RESULTS.md", "README.md", "meta.yaml",
    } <= files  # fmt: skip
    state = torch.load(experiment / "valid.acc.ave.pth", weights_only=True)
    held = load_file(tmp_path / "p" / "model.safetensors")
    assert held.keys() == state.keys()
    assert all(torch.equal(held[k], v) for k, v in state.items())
    config = yaml.safe_load((tmp_path / "p" / "config.yaml").read_text())
    assert config["inference_conf"] == {"beam_size": 4, "length_penalty": 0.5}
    assert len(config["base_fingerprints"]) == 4 and config["seed"] == 7
    prompts = json.loads((tmp_path / "p" / "prompts.json").read_text())
    assert prompts == {"audio+video": "Transcribe speech and video to text."}
    card = (tmp_path / "p" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: espnet_smop\nlicense: mit\n")
    assert "# A model" in card and "|decode/test|600|" in card
    assert all(value in card for value in config["base_fingerprints"].values())
    assert "Transcribe speech and video to text." in card


def test_packing_lists_what_is_in_it(experiment, tmp_path, capsys):
    listed = []
    for name in ("p", "p.zip"):
        package_main(["pack", "--exp", str(experiment), "--out", str(tmp_path / name)])
        *lines, last = capsys.readouterr().out.splitlines()
        assert last == f"packed: {tmp_path / name}"
        listed.append(sorted(tuple(line.split()) for line in lines))
    sizes = {str(p.relative_to(tmp_path / "p")): f"{p.stat().st_size:,}"
             for p in (tmp_path / "p").rglob("*") if p.is_file()}  # fmt: skip
    assert listed == [sorted((size, file) for file, size in sizes.items())] * 2


def test_weights_in_half_precision(experiment, utterance, tmp_path):
    whole, half = (tmp_path / f"{name}.zip" for name in ("whole", "half"))
    for out, dtype in ((whole, []), (half, ["--dtype", "float16"])):
        package_main(["pack", "--exp", str(experiment), "--out", str(out), *dtype])
    sizes = {p: zipfile.ZipFile(p).getinfo("model.safetensors").file_size for p in (whole, half)}
    assert 0.5 <= sizes[half] / sizes[whole] < 0.6
    plain = torch.load(experiment / "valid.acc.ave.pth", weights_only=True)
    model = AVSRSpeech2Text.from_pretrained(half, **SEARCH).model
    for name, value in model.state_dict().items():
        assert value.dtype == plain[name].dtype
        assert torch.equal(value, plain[name].half().to(value.dtype)), name


def test_a_value_beyond_half_precision_is_named(experiment, tmp_path):
    file = experiment / "valid.acc.ave.pth"
    state = torch.load(file, weights_only=True)
    name = next(k for k, v in state.items() if v.is_floating_point())
    state[name].view(-1)[0] = 7e4
    torch.save(state, file)
    with pytest.raises(PackageError, match=f"{name} of .* overflows torch.float16"):
        pack(experiment, file, tmp_path / "half.zip", dtype=torch.float16)


def test_packing_again_gives_the_same_file(experiment, tmp_path):
    first, second = (
        pack(experiment, "valid.acc.ave.pth", tmp_path / f"{n}.zip").read_bytes() for n in "ab"
    )
    assert first == second
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "b.zip", "exp"]


def test_a_packages_settings_are_defaults(experiment, utterance, tmp_path):
    settings = {"beam_size": 3, "max_new_tokens": 5, "length_penalty": 0.0}
    out = pack(experiment, "valid.acc.ave.pth", tmp_path / "p.zip", inference=settings)
    speech2text = AVSRSpeech2Text.from_pretrained(out, beam_size=1)
    assert speech2text.generation == {**DEFAULTS, **settings, "beam_size": 1}
    [(_, _, ids, _)] = speech2text(**utterance)
    assert len(ids) <= 5
    # How an imported model is meant to be decoded is part of it.
    config = yaml.safe_load((experiment / "config.yaml").read_text())
    config["inference_conf"] = {"length_penalty": 1.0}
    (experiment / "config.yaml").write_text(yaml.safe_dump(config))
    pack(experiment, "valid.acc.ave.pth", tmp_path / "q", inference=settings)
    packed = yaml.safe_load((tmp_path / "q" / "config.yaml").read_text())
    assert packed["inference_conf"] == {**settings, "length_penalty": 1.0}


def test_an_experiment_is_loaded_like_a_package_from_anywhere(
    experiment, utterance, tmp_path, monkeypatch
):
    expected = from_experiment(experiment)(**utterance)
    config = yaml.safe_load((experiment / "config.yaml").read_text())
    llm = tmp_path / "exp" / "base" / "llm"
    llm.parent.mkdir()
    os.symlink(config["decoder_conf"]["model"], llm)
    config["decoder_conf"]["model"] = "exp/base/llm"  # as a recipe writes it
    (experiment / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir("/")
    assert AVSRSpeech2Text.from_pretrained(experiment, **SEARCH)(**utterance) == expected
    assert from_experiment(experiment)(**utterance) == expected
    for out, bases in ((tmp_path / "p.zip", True), (experiment / "packed.zip", False)):
        pack(experiment, "valid.acc.ave.pth", out, include_bases=bases)
        assert AVSRSpeech2Text.from_pretrained(out, **SEARCH)(**utterance) == expected


def test_other_bases_can_be_given_if_they_are_the_same(experiment, utterance, tmp_path, make_llm):
    expected = from_experiment(experiment)(**utterance)
    out = pack(experiment, "valid.acc.ave.pth", tmp_path / "p")
    config = yaml.safe_load((out / "config.yaml").read_text())
    llm, config["decoder_conf"]["model"] = config["decoder_conf"]["model"], "/nowhere/llm"
    (out / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(BaseModelError, match="/nowhere/llm"):
        AVSRSpeech2Text.from_pretrained(out)
    assert AVSRSpeech2Text.from_pretrained(out, llm=llm, **SEARCH)(**utterance) == expected
    with pytest.raises(BaseModelError, match=r"base models differ.*decoder\.llm"):
        AVSRSpeech2Text.from_pretrained(out, llm=make_llm("mistral"))


@pytest.mark.parametrize("what", ["LLM", "tokenizer"])
def test_exchanged_files_are_named(experiment, exchange, tmp_path, what):
    path = experiment / "config.yaml"
    config = yaml.safe_load(path.read_text())
    llm = shutil.copytree(config["decoder_conf"]["model"], tmp_path / "llm")
    config["decoder_conf"]["model"] = str(llm)
    path.write_text(yaml.safe_dump(config))
    out = pack(experiment, "valid.acc.ave.pth", tmp_path / "packed")
    part = exchange[what](llm)
    with pytest.raises(BaseModelError, match=rf"base models differ.*{part} \(expected") as raised:
        from_experiment(experiment)
    assert "\n" not in str(raised.value)
    if what == "tokenizer":
        AVSRSpeech2Text.from_pretrained(out)  # has the tokenizer of the training
        with pytest.raises(PackageError, match="llm is not the one used in training"):
            pack(experiment, "valid.acc.ave.pth", tmp_path / "another")
        assert not (tmp_path / "another").exists()
    else:
        with pytest.raises(BaseModelError, match=part):
            AVSRSpeech2Text.from_pretrained(out)


def test_only_what_belongs_to_the_model_is_read_from_a_packages_config(experiment, tmp_path):
    out = pack(experiment, "valid.acc.ave.pth", tmp_path / "p")
    config = yaml.safe_load((out / "config.yaml").read_text())
    config |= {"use_adapter": True, "adapter": "lora", "init_param": ["/etc/passwd"]}
    (out / "config.yaml").write_text(yaml.safe_dump(config))
    args = AVSRSpeech2Text.from_pretrained(out).train_args
    assert not hasattr(args, "use_adapter") and not hasattr(args, "init_param")


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_with_one_input_of_two(experiment, utterance, modality):
    speech2text = from_experiment(experiment)
    one = {"audio": {"speech": utterance["speech"]}, "video": {"video": utterance["video"]}}
    with pytest.raises(ValueError, match="is missing, but the model takes it"):
        speech2text(**one[modality])
    [(text, *_)] = speech2text(**one[modality], allow_missing=True)
    assert isinstance(text, str)
    assert speech2text(**utterance, allow_missing=True) == speech2text(**utterance)
    with pytest.raises(ValueError, match="the data has no"):
        speech2text.hypotheses({}, allow_missing=True)


# -- zip files that are not trusted ----------------------------------------------------------------


def write_zip(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return path


def link(name, target):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, target


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("../evil.yaml", "x")], "lead out"),
        ([("a/../../evil.yaml", "x")], "lead out"),
        ([("/tmp/evil.yaml", "x")], "lead out"),
        ([("..\\evil.yaml", "x")], "lead out"),
        ([("C:evil.yaml", "x")], "lead out"),
        ([link("config.yaml", "/etc/passwd")], "link"),
        ([link("tokenizer", "/tmp"), ("tokenizer/a.json", "x")], "link"),
        ([("model.pth", "x")], "pickle"),
        ([("a.pkl", "x")], "pickle"),
        ([("pytorch_model.bin", "x")], "pickle"),
        ([("modeling.py", "x")], "program"),
        ([("config.yaml", "a"), ("config.yaml", "b")], "duplicate entry"),
        ([("config.yaml", "a"), ("Config.yaml", "b")], "duplicate entry"),
        ([("config.yaml", b"0" * 2**24)], "would grow"),
        ([(f"{i}.txt", "x") for i in range(1001)], "1001 entries"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_files_that_are_up_to_something_are_refused(tmp_path, entries, message):
    path = write_zip(tmp_path / "p.zip", entries)
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(PackageError, match=message):
        extract(path, inside)
    assert not list(inside.iterdir())
    assert {p.name for p in tmp_path.iterdir()} == {"p.zip", "inside"}
    with pytest.raises(PackageError, match=message):
        AVSRSpeech2Text.from_pretrained(path)


def test_the_total_size_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_MAX_BYTES", 10)
    path = write_zip(tmp_path / "p.zip", [("a.txt", "123456"), ("b.txt", "123456")])
    with pytest.raises(PackageError, match="it would take"), open_package(path):
        pass


def test_a_header_that_lies_about_the_size_is_noticed(tmp_path):
    path = write_zip(tmp_path / "p.zip", [("a.txt", os.urandom(4000))])
    data = bytearray(path.read_bytes())
    size = (4000).to_bytes(4, "little")
    at = data.rindex(size)  # in the central directory
    data[at : at + 4] = (40).to_bytes(4, "little")
    path.write_bytes(data)
    (tmp_path / "inside").mkdir()
    with pytest.raises(PackageError, match="cannot be read"):
        extract(path, tmp_path / "inside")


def test_damaged_content_is_noticed(tmp_path):
    path = write_zip(tmp_path / "p.zip", [("a.txt", "some words " * 1000)])
    data = bytearray(path.read_bytes())
    data[30 + len("a.txt")] ^= 0xFF  # the first byte after the header
    path.write_bytes(data)
    (tmp_path / "inside").mkdir()
    with pytest.raises(PackageError, match="cannot be read"):
        extract(path, tmp_path / "inside")


def test_other_compressions_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("a.txt", "some words")
    (tmp_path / "inside").mkdir()
    with pytest.raises(PackageError, match="neither stored nor deflated"):
        extract(tmp_path / "p.zip", tmp_path / "inside")


def test_no_zip_at_all(tmp_path):
    (tmp_path / "p.zip").write_bytes(b"nothing")
    with pytest.raises(PackageError, match=r"p\.zip cannot be read as a package"):
        AVSRSpeech2Text.from_pretrained(tmp_path / "p.zip")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("exp/typo", r"there is no exp/typo; there are exp/avsr_a, exp/avsr_b, exp/packed\.zip"),
        ("exp", r"exp is neither a package nor an experiment: it has no config\.yaml; there are"),
        ("a_corpus", r"a_corpus is neither a package nor an experiment: it has no config\.yaml$"),
        ("notes.txt", r"notes\.txt cannot be read as a package, a zip file made by"),
        (
            "elsewhere/model",
            r"elsewhere/model is neither a directory nor a zip file, and cannot be found on",
        ),
    ],
)
def test_what_is_no_model_is_named(tmp_path, monkeypatch, model, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: 1 / 0)
    for name in ("avsr_a", "avsr_b"):
        (tmp_path / "exp" / name).mkdir(parents=True)
        (tmp_path / "exp" / name / "config.yaml").write_text("x: 1\n")
    (tmp_path / "exp/packed.zip").touch()
    (tmp_path / "a_corpus").mkdir()
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(PackageError, match=message):
        AVSRSpeech2Text.from_pretrained(model)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda e: (e / "valid.acc.ave.pth").unlink(), "there is no checkpoint"),
        (lambda e: torch.save({"model": {}}, e / "valid.acc.ave.pth"), "is not a model file"),
        (lambda e: (e / "config.yaml").unlink(), "does not exist"),
        (lambda e: (e / "config.yaml").write_text("a: b"), "no decoder_conf"),
        (lambda e: (e / "decode.yaml").write_text("[beam_size, 4]"), "not a mapping of settings"),
    ],
)
def test_what_cannot_be_packed(experiment, tmp_path, spoil, message):
    (experiment / "decode.yaml").write_text("beam_size: 4\n")
    spoil(experiment)
    options = ["--inference_config", str(experiment / "decode.yaml")]
    for out in (tmp_path / "p.zip", tmp_path / "p"):
        with pytest.raises((PackageError, ConfigError), match=message):
            package_main(["pack", "--exp", str(experiment), "--out", str(out), *options])
    assert [p.name for p in tmp_path.iterdir()] == ["exp"]


def test_bases_without_safe_weights_are_not_included(experiment, tmp_path):
    config = yaml.safe_load((experiment / "config.yaml").read_text())
    old = tmp_path / "old"
    old.mkdir()
    for file in Path(config["decoder_conf"]["model"]).iterdir():
        if file.suffix != ".safetensors":
            (old / file.name).symlink_to(file)
    (old / "pytorch_model.bin").write_bytes(b"weights")
    config["decoder_conf"]["model"] = str(old)
    (experiment / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(PackageError, match="old cannot be included: it has no weights as"):
        pack(experiment, "valid.acc.ave.pth", tmp_path / "p", include_bases=True)
    assert not (tmp_path / "p").exists()


def test_a_model_of_several_views_is_packed_with_all_of_them(
    model_args, utterance, tmp_path, capsys
):
    experiment = tmp_path / "omni"
    experiment.mkdir()
    args = model_args(
        model_conf={"tasks": {"asr": 1.0, "vsr": 1.5, "avsr": 1.0}},
        projector_conf={
            "routing": "dedr", "num_experts": 3, "hidden_size": 16, "per_rate": True,
            "downsample": {"mode": "avgpool", "audio": [4, 8], "video": [2, 4]},
        },
        inference_conf=SEARCH,
    )  # fmt: skip
    args.decoder_conf = {**args.decoder_conf, "lora": {"r": 2, "per": "task", "shared": True}}
    torch.manual_seed(0)
    model = AVSRTask.build_model(args)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    (experiment / "config.yaml").write_text(yaml.safe_dump(vars(args)))
    torch.save(model.state_dict(), experiment / "valid.acc.ave.pth")
    out = pack(experiment, "valid.acc.ave.pth", tmp_path / "packed", include_bases=True)
    card = (out / "README.md").read_text()
    assert "tasks asr, vsr, avsr (`--task asr`)" in card
    assert "audio 4, 8; video 2, 4 (`--rates audio=8,video=4`)" in card
    scores = set()
    for task, rates in (
        ("asr", {"audio": 8}), ("vsr", {"video": 2}), ("vsr", {"video": 4}), ("avsr", {}),
    ):  # fmt: skip
        view = {"task": task, "rates": rates}
        inputs = {"asr": ("speech",), "vsr": ("video",)}.get(task, ("speech", "video"))
        given = {name: utterance[name] for name in inputs}
        [expected, *_] = from_experiment(experiment, **view)(**given)
        [found, *_] = AVSRSpeech2Text.from_pretrained(out, **view)(**given)
        assert found == expected
        scores.add(expected[-1])
    assert len(scores) == 4


def test_a_card_names_as_base_models_what_is_on_the_hub(experiment, tmp_path, monkeypatch):
    config = yaml.safe_load((experiment / "config.yaml").read_text())
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/avhubert").mkdir()
    config["video_frontend_conf"]["model"] = "downloads/avhubert"
    config["audio_frontend_conf"]["model"] = "openai/whisper-base.en"
    (experiment / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir("/")
    out = pack(experiment, "valid.acc.ave.pth", tmp_path / "p")
    header = yaml.safe_load((out / "README.md").read_text().split("---")[1])
    assert header["base_model"] == ["openai/whisper-base.en"]
    # The LLM's directory, which is nobody else's.
    assert config["decoder_conf"]["model"].startswith("/")
    assert str(Path(config["decoder_conf"]["model"]).parent) not in (out / "README.md").read_text()


def test_packing_replaces_packages_only(experiment, tmp_path):
    for _ in range(2):
        pack(experiment, "valid.acc.ave.pth", tmp_path / "p")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(PackageError, match="is not a package"):
        pack(experiment, "valid.acc.ave.pth", tmp_path / "mine")


# -- upload ----------------------------------------------------------------------------------------


class Hub:
    """Stands for huggingface_hub's client."""

    calls: list = []  # noqa: RUF012

    def __init__(self, **kwargs):
        pass

    def create_repo(self, repo, **kwargs):
        self.calls.append(("create", repo, kwargs))

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, **kwargs):
        there = {str(p.relative_to(folder_path)) for p in folder_path.rglob("*") if p.is_file()}
        assert set(allow_patterns) <= there
        self.calls.append(("upload", repo_id, sorted(allow_patterns)))
        return type("Info", (), {"commit_url": "https://example.org/commit"})


@pytest.mark.parametrize("name", ["p.zip", "p"])
def test_upload(experiment, tmp_path, monkeypatch, capsys, name):
    out = pack(experiment, "valid.acc.ave.pth", tmp_path / name)
    monkeypatch.setattr("espnet_smop.checkpoint.hub.HfApi", Hub)
    monkeypatch.setattr("espnet_smop.checkpoint.hub.get_token", lambda: None)
    monkeypatch.setattr(Hub, "calls", [])
    package_main(["upload", "--packed", str(out), "--repo", "me/model", "--dry_run"])
    listed = capsys.readouterr().out
    assert "model.safetensors" in listed and "files" in listed and "me/model" in listed
    assert "which only you have" in listed
    with pytest.raises(PackageError, match="HF_TOKEN"):
        package_main(["upload", "--packed", str(out), "--repo", "me/model"])
    assert Hub.calls == []
    monkeypatch.setattr("espnet_smop.checkpoint.hub.get_token", lambda: "hf_secret")
    package_main(["upload", "--packed", str(out), "--repo", "me/model", "--private", "true"])
    (create, repo, options), (upload, _, files) = Hub.calls
    assert (create, repo, upload) == ("create", "me/model", "upload")
    assert options == {"private": True, "exist_ok": True}
    assert {"README.md", "config.yaml", "model.safetensors"} <= set(files)
    assert "hf_secret" not in capsys.readouterr().out


def test_upload_without_network(experiment, tmp_path, monkeypatch):
    out = pack(experiment, "valid.acc.ave.pth", tmp_path / "p")
    unreachable = partial(HfApi, endpoint="http://127.0.0.1:9", token="hf_secret")
    monkeypatch.setattr("espnet_smop.checkpoint.hub.HfApi", unreachable)
    monkeypatch.setattr("espnet_smop.checkpoint.hub.get_token", lambda: "hf_secret")
    with pytest.raises(PackageError, match="the hub could not be reached"):
        package_main(["upload", "--packed", str(out), "--repo", "me/model"])


def test_upload_wants_a_package_and_an_id(experiment, tmp_path):
    with pytest.raises(PackageError, match="no meta.yaml"):
        package_main(["upload", "--packed", str(experiment), "--repo", "me/model", "--dry_run"])
    with pytest.raises(PackageError, match="no id at all"):
        package_main(["upload", "--packed", str(experiment), "--repo", "no id at all", "--dry_run"])


def test_weights_of_another_model_are_refused(experiment, tmp_path):
    out = pack(experiment, "valid.acc.ave.pth", tmp_path / "p")
    save_file({"a": torch.zeros(1)}, out / "model.safetensors")
    with pytest.raises(RuntimeError, match="does not fit the model"):
        AVSRSpeech2Text.from_pretrained(out)
