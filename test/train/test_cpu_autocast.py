import logging

import pytest
import torch
from torch import nn

from espnet_smop.train import cpu_autocast as module
from espnet_smop.train.cpu_autocast import cpu_autocast


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 64)
        self.seen = []

    def forward(self, x):
        y = self.linear(x)
        self.seen.append(y.dtype)
        y.register_hook(lambda grad: self.seen.append(torch.is_autocast_enabled("cpu")))
        return y.float().square().mean()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model()


def test_forward_is_in_bfloat16_and_backward_as_it_would_be(model, monkeypatch):
    monkeypatch.setattr(module, "has_bfloat16", lambda: True)
    x = torch.randn(8, 64)
    exact = model(x)
    model.seen.clear()
    with cpu_autocast(model):
        loss = model(x)
        loss.backward()
    assert model.seen == [torch.bfloat16, False]
    assert loss.item() != exact.item()
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)
    assert model.linear.weight.grad.dtype == torch.float32
    assert model(x).item() == exact.item()  # over


def test_a_cpu_without_the_instructions_stays_in_float32(model, monkeypatch, caplog):
    monkeypatch.setattr(module, "has_bfloat16", lambda: False)
    caplog.set_level(logging.INFO)
    with cpu_autocast(model):
        model(torch.randn(8, 64)).backward()
    assert model.seen == [torch.float32, False]
    assert "float32" in caplog.text


def test_an_error_ends_it_too(model, monkeypatch):
    monkeypatch.setattr(module, "has_bfloat16", lambda: True)
    with pytest.raises(RuntimeError), cpu_autocast(model):
        model(torch.randn(8, 3))
    model(torch.randn(8, 64)).backward()
    assert model.seen == [torch.float32, False]


def test_the_cpu_is_asked(monkeypatch):
    found = {}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert not module.has_bfloat16()
    found["avx512_bf16"] = True
    assert module.has_bfloat16()
