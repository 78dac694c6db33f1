import itertools
import math

import pytest
import torch
from torch import nn

from pretraining.ctc import CTCConfig, CTCModel, error_rate, train_ctc


class Identity(nn.Module):
    def forward(self, x, x_lengths):
        return x, x_lengths


def test_loss_equals_the_sum_over_all_alignments():
    """A brute-force sum over the paths that collapse to the text."""
    torch.manual_seed(0)
    model = CTCModel(Identity(), width=3, vocabularies=[2])
    x = torch.randn(1, 4, 3)
    ((log_probs, _),) = model(x, torch.tensor([4]))
    total = 0.0
    for path in itertools.product(range(3), repeat=4):
        collapsed = [k for k, _ in itertools.groupby(path) if k != 0]
        if collapsed == [1, 2]:
            total += math.exp(sum(float(log_probs[0, t, k].detach()) for t, k in enumerate(path)))
    loss = model.loss(x, torch.tensor([4]), [(torch.tensor([[0, 1]]), torch.tensor([2]))])
    assert float(loss.detach()) == pytest.approx(-math.log(total) / 2, abs=1e-5)


def test_greedy_collapses_repeats_and_blanks_within_the_length():
    model = CTCModel(Identity(), width=3, vocabularies=[2])
    with torch.no_grad():
        model.outputs[0].weight.copy_(torch.eye(3))
        model.outputs[0].bias.zero_()
    path = torch.tensor([1, 1, 0, 1, 2, 2, 0, 2])
    x = torch.nn.functional.one_hot(path, 3).float()[None] * 9
    assert model.greedy(x, torch.tensor([8])) == [[0, 0, 1, 1]]
    assert model.greedy(x, torch.tensor([3])) == [[0]]


def test_kinds_of_tokens_add_up_and_the_last_one_is_recognised():
    torch.manual_seed(0)
    model = CTCModel(Identity(), width=3, vocabularies=[2, 4])
    x, x_lengths = torch.randn(2, 6, 3), torch.tensor([6, 4])
    targets = [
        (torch.tensor([[0, 1], [1, -1]]), torch.tensor([2, 1])),
        (torch.tensor([[3], [2]]), torch.tensor([1, 1])),
    ]
    losses = []
    for output, target in zip(model.outputs, targets, strict=True):
        single = CTCModel(Identity(), width=3, vocabularies=[output.out_features - 1])
        single.outputs[0] = output
        losses.append(single.loss(x, x_lengths, [target]))
    torch.testing.assert_close(model.loss(x, x_lengths, targets), sum(losses))
    assert model.greedy(x, x_lengths) == single.greedy(x, x_lengths)


def test_a_stride_is_a_downsampling_before_the_layer():
    torch.manual_seed(0)
    model = CTCModel(Identity(), width=3, vocabularies=[2, 2], strides=[1, 2])
    x, x_lengths = torch.randn(2, 6, 3), torch.tensor([6, 3])
    x[1, 3:] = 99.0
    (every, lengths), (halved, halved_lengths) = model(x, x_lengths)
    assert (every.shape[1], lengths.tolist()) == (6, [6, 3])
    assert (halved.shape[1], halved_lengths.tolist()) == (3, [3, 2])
    expected = model.outputs[1](torch.stack([x[1, :2].mean(0), x[1, 2]])).log_softmax(-1)
    torch.testing.assert_close(halved[1, :2], expected)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(4, 16, batch_first=True)

    def forward(self, x, x_lengths):
        return self.gru(x)[0], x_lengths


def test_training_learns_to_spell():
    torch.manual_seed(0)
    model = CTCModel(Recurrent(), width=16, vocabularies=[4])
    text = torch.stack([torch.randperm(4)[:3] for _ in range(32)])
    x = nn.functional.one_hot(text.repeat_interleave(3, dim=1), 4).float()
    batch = (x, torch.full((32,), 9), [(text, torch.full((32,), 3))])

    def decode(ids):
        return " ".join(map(str, ids))

    assert error_rate(model, iter([batch]), decode) > 60
    train_ctc(model, lambda epoch: iter([batch]), 1, CTCConfig(epochs=150, lr=2e-2))
    assert error_rate(model, iter([batch]), decode) < 5


def test_an_interrupted_training_ends_as_an_undisturbed_one(tmp_path):
    torch.manual_seed(0)
    text = torch.stack([torch.randperm(4)[:3] for _ in range(8)])
    x = nn.functional.one_hot(text.repeat_interleave(3, dim=1), 4).float()
    batch = (x, torch.full((8,), 9), [(text, torch.full((8,), 3))])
    start = CTCModel(Recurrent(), width=16, vocabularies=[4]).state_dict()
    config = CTCConfig(epochs=4, lr=2e-2)

    def trained(last, checkpoint):
        def batches(epoch):
            if epoch > last:
                raise KeyboardInterrupt
            return iter([batch, batch])

        model = CTCModel(Recurrent(), width=16, vocabularies=[4])
        model.load_state_dict(start)
        train_ctc(model, batches, 2, config, checkpoint=checkpoint)
        return model.state_dict()

    expected = trained(4, None)
    checkpoint = tmp_path / "checkpoint.pth"
    with pytest.raises(KeyboardInterrupt):
        trained(2, checkpoint)
    torch.testing.assert_close(trained(4, checkpoint), expected, rtol=0, atol=0)
