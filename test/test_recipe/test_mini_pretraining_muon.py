import pytest
import torch
from torch import nn
from transformers import get_cosine_schedule_with_warmup

from pretraining.muon import muon_and_adamw, warmup_and_cosine


class Model(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.embed = nn.Embedding(5, 8)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(layers))
        self.output = nn.Linear(8, 5)


def names_of(model, optimizer):
    names = {id(p): n for n, p in model.named_parameters()}
    return {names[id(p)] for group in optimizer.param_groups for p in group["params"]}


def test_matrices_of_layers_go_to_muon_and_all_else_to_adamw():
    model = Model(layers=2)
    model.output.requires_grad_(False)
    adamw, muon = muon_and_adamw(model, lr=1e-3, matrix_lr=2e-2, weight_decay=0.1)
    assert isinstance(adamw, torch.optim.AdamW) and isinstance(muon, torch.optim.Muon)
    assert names_of(model, muon) == {"encoder.layers.0.weight", "encoder.layers.1.weight"}
    assert names_of(model, adamw) == {
        "embed.weight", "encoder.layers.0.bias", "encoder.layers.1.bias"
    }  # fmt: skip
    for optimizer, lr in ((adamw, 1e-3), (muon, 2e-2)):
        (group,) = optimizer.param_groups
        assert (group["lr"], group["weight_decay"]) == (lr, 0.1)


def test_without_layers_there_is_adamw_alone():
    (adamw,) = muon_and_adamw(Model(layers=0), lr=1e-3, matrix_lr=2e-2, weight_decay=0.0)
    assert isinstance(adamw, torch.optim.AdamW)


def test_the_learning_rate_rises_and_falls_along_a_cosine():
    (ours,) = warmup_and_cosine([sgd := torch.optim.SGD([torch.zeros(1)], 2.0)], warmup=3, steps=9)
    other = torch.optim.SGD([torch.zeros(1)], 2.0)
    theirs = get_cosine_schedule_with_warmup(other, num_warmup_steps=3, num_training_steps=9)
    for step in range(9):
        # Theirs lets the first update do nothing and is at the peak one step later.
        expected = 2.0 * (step + 1) / 3 if step < 3 else other.param_groups[0]["lr"]
        assert sgd.param_groups[0]["lr"] == pytest.approx(expected)
        for it in (sgd, other, ours, theirs):
            it.step()
    assert sgd.param_groups[0]["lr"] == pytest.approx(0)
