import math

import pytest
import torch
from torch import nn

from espnet_smop.train.warm_start import CTCWarmStart
from pretraining.ctc import CTCModel


class Identity(nn.Module):
    def forward(self, x, x_lengths):
        return x, x_lengths


def random_inputs(lengths):
    tokens = {m: torch.randn(len(n), max(n), 5) for m, n in lengths.items()}
    text = torch.tensor([[4, 0, 2], [1, 1, -1]])
    return tokens, {m: torch.tensor(n) for m, n in lengths.items()}, text, torch.tensor([3, 2])


def test_it_is_ctc_whose_output_layer_are_the_embeddings():
    """Against the CTC model of the encoders with this output layer."""
    torch.manual_seed(0)
    embeddings = torch.randn(6, 5)
    warm_start = CTCWarmStart(10, embeddings)
    nn.init.normal_(warm_start.blank)
    nn.init.constant_(warm_start.log_scale, math.log(0.7))
    tokens, lengths, text, text_lengths = random_inputs({"audio": [7, 5]})
    model = CTCModel(Identity(), width=5, vocabularies=[6])
    with torch.no_grad():
        model.outputs[0].weight.copy_(0.7 * torch.cat([warm_start.blank[None], embeddings]))
        model.outputs[0].bias.zero_()
    expected = sum(
        float(model.loss(tokens["audio"][b : b + 1, :t], torch.tensor([t]),
                         [(text[b : b + 1, :n], torch.tensor([n]))]).detach()) * n
        for b, (t, n) in enumerate([(7, 3), (5, 2)])
    ) / 5  # fmt: skip
    loss = warm_start(tokens, lengths, text, text_lengths, embeddings)
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-5)


def test_at_first_an_embedding_is_its_own_token_almost_for_certain():
    torch.manual_seed(0)
    embeddings = 0.03 * torch.randn(50, 64)
    warm_start = CTCWarmStart(10, embeddings)
    loss = warm_start({"audio": embeddings[None, 2:3]}, {"audio": torch.tensor([1])},
                      torch.tensor([[2]]), torch.tensor([1]), embeddings)  # fmt: skip
    similarities = embeddings @ embeddings[2] / embeddings.square().sum(dim=1).mean()
    expected = -torch.cat([torch.zeros(1), 10 * similarities]).log_softmax(0)[3]
    assert float(loss.detach()) == pytest.approx(float(expected), abs=1e-4)
    assert float(loss.detach()) < 0.3


def test_the_modalities_count_alike():
    torch.manual_seed(0)
    embeddings = torch.randn(6, 5)
    warm_start = CTCWarmStart(10, embeddings)
    tokens, lengths, *text = random_inputs({"audio": [7, 5], "video": [4, 4]})
    both = warm_start(tokens, lengths, *text, embeddings)
    each = [warm_start({m: tokens[m]}, {m: lengths[m]}, *text, embeddings) for m in tokens]
    torch.testing.assert_close(both, sum(each) / 2)


def test_padding_and_texts_that_do_not_fit_have_no_influence():
    torch.manual_seed(0)
    embeddings = torch.randn(6, 5)
    warm_start = CTCWarmStart(10, embeddings)
    tokens, lengths, text, text_lengths = random_inputs({"audio": [7, 2]})  # "1 1" needs 3
    loss = warm_start(tokens, lengths, text, text_lengths, embeddings)
    tokens["audio"] = torch.cat([tokens["audio"][:1], torch.full((1, 7, 5), 9.0)])
    assert torch.equal(loss, warm_start(tokens, lengths, text, text_lengths, embeddings))
    loss.backward()
    assert torch.isfinite(warm_start.blank.grad).all()


def test_autocast_does_not_round_the_loss():
    torch.manual_seed(0)
    embeddings = torch.randn(6, 5)
    warm_start = CTCWarmStart(10, embeddings)
    inputs = random_inputs({"audio": [7, 5]})
    want = warm_start(*inputs, embeddings)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(warm_start(*inputs, embeddings), want)
