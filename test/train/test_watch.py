import logging

import pytest
import torch
from torch import nn

from espnet_smop.train.watch import DUMP, NonFiniteLossError, TrainingWatch


class Model(nn.Module):
    """Returns the losses and shares that it is told."""

    def __init__(self, losses, shares=(0.5, 0.5)):
        super().__init__()
        self.losses, self.shares = iter(losses), shares

    def forward(self, speech, utt_id):
        stats = {f"router_r/audio_first_{e}": torch.tensor(s) for e, s in enumerate(self.shares)}
        return torch.tensor(next(self.losses)), stats, torch.tensor(1)


def train(model, directory, patience, batches):
    with TrainingWatch(model, directory, patience) as watch:
        for number in range(batches):
            model(speech=torch.full((2, 3), number), utt_id=[f"a{number}", f"b{number}"])
    return watch


def test_a_loss_that_stays_nan_ends_with_names_and_dump(tmp_path, caplog):
    nan = float("nan")
    model = Model([1.0, nan, 1.0, nan, float("inf"), nan, 1.0])
    with pytest.raises(NonFiniteLossError, match=r"in 3 batches in a row, the last with a5 b5"):
        train(model, tmp_path, 2, 7)
    dump = torch.load(tmp_path / DUMP, weights_only=True)
    assert dump["utt_id"] == ["a5", "b5"] and torch.equal(dump["speech"], torch.full((2, 3), 5))
    assert [p.name for p in tmp_path.iterdir()] == [DUMP]
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 4 and said[0] == "the loss is nan in the batch of a1 b1"
    assert not model._forward_hooks


def test_within_the_patience_it_goes_on(tmp_path):
    train(Model([float("nan"), float("nan"), 1.0] * 5), tmp_path, 2, 15)
    assert not list(tmp_path.iterdir())


def test_validation_is_not_watched(tmp_path):
    train(Model([float("nan")] * 3).eval(), tmp_path, 0, 3)


@pytest.mark.parametrize(
    ("shares", "warned"), [((0.95, 0.03, 0.02), True), ((0.85, 0.15), False), ((1.0,), False)]
)
def test_a_collapsed_router_is_reported_with_advice(tmp_path, shares, warned, caplog):
    caplog.set_level(logging.WARNING)
    watch = train(Model([1.0] * 4, shares), tmp_path, 0, 4)
    lines = watch.report_collapse(3)
    assert bool(lines) == warned == bool(caplog.records)
    if warned:
        assert "epoch 3: router_r/audio sends 95% of its tokens to expert 0 of 3" in lines[0]
        assert "load_balancing_weight" in lines[0]
