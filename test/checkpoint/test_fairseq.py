import argparse
import io
import os
import pickle
import sys
import types
from pathlib import Path

import pytest
import torch

from espnet_smop.base_model import BaseModelError
from espnet_smop.checkpoint.fairseq import convert, read_checkpoint
from espnet_smop.frontend.avhubert import AVHuBERTConfig, AVHuBERTModel

GOLDEN = Path(__file__).parents[1] / "golden" / "avhubert_tiny_fairseq.pt"


@pytest.fixture(scope="module")
def golden():
    return read_checkpoint(GOLDEN)


class Call:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.system, ("touch {}",), r"(posix|nt)\.system"),
        (eval, ("open({!r}, 'w')",), r"__builtin__\.eval"),
        (getattr, (os, "system"), r"__builtin__\.getattr"),
        (torch.load, ("{}",), r"torch\.serialization\.load"),
        (torch.hub.load, ("{}",), r"torch\.hub\.load"),
        (pickle.loads, (b"",), r"_?pickle\.loads"),
    ],
)
def test_calls_are_refused_by_name_and_not_made(tmp_path, function, args, name, legacy):
    made = tmp_path / "made"
    if function is getattr:
        args = (Call(__import__, "os"), "system")
        name = r"__builtin__\.(getattr|__import__)"
    args = tuple(a.format(str(made)) if isinstance(a, str) else a for a in args)
    path = tmp_path / "bad.pt"
    content = {"model": {"w": torch.zeros(2)}, "extra_state": Call(function, *args)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(BaseModelError, match=name):
        read_checkpoint(path)
    assert not made.exists()


def test_a_bare_pickle_is_refused(tmp_path):
    made = tmp_path / "made"
    path = tmp_path / "bad.pt"
    path.write_bytes(pickle.dumps(Call(os.system, f"touch '{made}'")))
    with pytest.raises(BaseModelError, match=r"(posix|nt)\.system"):
        read_checkpoint(path)
    assert not made.exists()


def test_torchscript_is_refused(tmp_path):
    path = tmp_path / "script.pt"
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(path)
    with pytest.raises(BaseModelError, match="TorchScript"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", GOLDEN.read_bytes()[:5000]])
def test_damaged_files(tmp_path, content):
    path = tmp_path / "damaged.pt"
    path.write_bytes(content)
    with pytest.raises(BaseModelError, match=r"damaged\.pt"):
        read_checkpoint(path)
    with pytest.raises(BaseModelError, match="no file"):
        read_checkpoint(tmp_path / "absent.pt")


def test_objects_of_training_state_become_stand_ins(tmp_path, monkeypatch):
    # A module that exists while the file is written, and would do harm if it were imported.
    module = types.ModuleType("fairseq")
    module.Meter = type("Meter", (), {"__module__": "fairseq"})
    monkeypatch.setitem(sys.modules, "fairseq", module)
    meter = module.Meter()
    meter.sum = 3
    torch.save({"model": {}, "meters": meter, "args": argparse.Namespace(a=1)}, tmp_path / "x.pt")
    monkeypatch.delitem(sys.modules, "fairseq")
    checkpoint = read_checkpoint(tmp_path / "x.pt")
    assert "fairseq" not in sys.modules
    assert checkpoint["meters"].state == {"sum": 3}


def test_golden_config(golden):
    config, weights = convert(golden)
    assert config == AVHuBERTConfig(
        encoder_layers=2,
        encoder_embed_dim=64,
        encoder_ffn_embed_dim=128,
        encoder_attention_heads=4,
    )
    assert all(w.dtype == torch.float32 for n, w in weights.items() if "num_batches" not in n)


def test_half_precision_is_kept_and_loads(golden, tmp_path):
    from espnet_smop.frontend.avhubert import save

    half = {k: v.half() if v.is_floating_point() else v for k, v in golden["model"].items()}
    config, weights = convert(golden | {"model": half})
    save(config, weights, tmp_path)
    model = AVHuBERTModel.from_pretrained(tmp_path)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    video = torch.randn(1, 4, 88, 88)
    full = AVHuBERTModel(config).eval()
    full.load_state_dict({k: half[k].float() for k in weights})
    with torch.no_grad():
        torch.testing.assert_close(model(video=video)[0], full(video=video)[0])


@pytest.mark.parametrize("as_namespace", [False, True])
def test_finetuned_checkpoint(golden, tmp_path, as_namespace):
    model = {f"encoder.w2v_model.{k}": v for k, v in golden["model"].items()}
    model["decoder.embed_tokens.weight"] = torch.zeros(5, 64)
    inner = golden["cfg"]
    if as_namespace:
        inner = argparse.Namespace(**inner["model"])
    settings = {"_name": "av_hubert_seq2seq", "decoder_layers": 6, "w2v_args": inner}
    torch.save({"model": model, "cfg": {"model": settings}, "args": None}, tmp_path / "ft.pt")
    config, weights = convert(read_checkpoint(tmp_path / "ft.pt"))
    expected_config, expected = convert(golden)
    assert config == expected_config and weights.keys() == expected.keys()
    assert all(torch.equal(weights[k], expected[k]) for k in expected)


def test_wrong_and_missing_keys_are_listed(golden):
    model = dict(golden["model"])
    model["encoder.layers.1.fc3.weight"] = model.pop("encoder.layers.1.fc2.weight")
    model["encoder.layer_norm.weight"] = torch.zeros(3)
    with pytest.raises(BaseModelError) as e:
        convert(golden | {"model": model})
    assert "missing: encoder.layers.1.fc2.weight" in str(e.value)
    assert "unexpected: encoder.layers.1.fc3.weight" in str(e.value)
    assert "encoder.layer_norm.weight (3,), expected (64,)" in str(e.value)


def test_other_models_and_settings_are_refused(golden):
    with pytest.raises(BaseModelError, match="no AV-HuBERT"):
        convert({"model": {"encoder.weight": torch.zeros(1)}, "cfg": {"model": {}}})
    settings = dict(golden["cfg"]["model"])
    del settings["encoder_attention_heads"]
    with pytest.raises(BaseModelError, match="encoder_attention_heads"):
        convert(golden | {"cfg": {"model": settings}})
    settings = golden["cfg"]["model"] | {"layer_norm_first": False, "modality_fuse": "add"}
    with pytest.raises(BaseModelError, match=r"layer_norm_first.*modality_fuse"):
        convert(golden | {"cfg": {"model": settings}})


def test_old_pickles_of_parameters(golden, tmp_path):
    model = {
        k: torch.nn.Parameter(v, requires_grad=v.is_floating_point())
        if v.is_floating_point()
        else v
        for k, v in golden["model"].items()
    }
    buffer = io.BytesIO()
    torch.save(
        golden | {"model": model, "task_state": {}}, buffer, _use_new_zipfile_serialization=False
    )
    (tmp_path / "old.pt").write_bytes(buffer.getvalue())
    _, weights = convert(read_checkpoint(tmp_path / "old.pt"))
    assert all(torch.equal(weights[k], golden["model"][k]) for k in weights)
