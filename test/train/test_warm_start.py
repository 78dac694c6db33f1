import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from espnet_smop.train.warm_start import CTCWarmStart


def make(embeddings):
    return CTCWarmStart(10, SimpleNamespace(input_embeddings=embeddings))


def random_inputs(lengths):
    tokens = {m: torch.randn(len(n), max(n), 5) for m, n in lengths.items()}
    text = torch.tensor([[4, 0, 2], [1, 1, -1]])
    return tokens, {m: torch.tensor(n) for m, n in lengths.items()}, text, torch.tensor([3, 2])


def test_it_is_ctc_whose_output_layer_are_the_embeddings():
    """Against PyTorch's CTC of each utterance alone, behind a linear layer of these weights."""
    torch.manual_seed(0)
    embeddings = torch.randn(6, 5)
    warm_start = make(embeddings)
    nn.init.normal_(warm_start.blank)
    nn.init.constant_(warm_start.log_scale, math.log(0.7))
    tokens, lengths, text, text_lengths = random_inputs({"audio": [7, 5]})
    output = nn.Linear(5, 7, bias=False)
    output.weight.data = 0.7 * torch.cat([warm_start.blank[None], embeddings])
    ctc = nn.CTCLoss(reduction="sum")
    expected = sum(
        float(ctc(output(tokens["audio"][b, :t]).log_softmax(-1), text[b, :n] + 1,
                  torch.tensor(t), torch.tensor(n)))
        for b, (t, n) in enumerate([(7, 3), (5, 2)])
    ) / 5  # fmt: skip
    loss = warm_start.ctc(tokens, lengths, text, text_lengths, embeddings)
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-5)


def test_at_first_an_embedding_is_its_own_token_almost_for_certain():
    torch.manual_seed(0)
    embeddings = 0.03 * torch.randn(50, 64)
    warm_start = make(embeddings)
    loss = warm_start.ctc({"audio": embeddings[None, 2:3]}, {"audio": torch.tensor([1])},
                      torch.tensor([[2]]), torch.tensor([1]), embeddings)  # fmt: skip
    similarities = embeddings @ embeddings[2] / embeddings.square().sum(dim=1).mean()
    expected = -torch.cat([torch.zeros(1), 20 * similarities]).log_softmax(0)[3]
    assert float(loss.detach()) == pytest.approx(float(expected), abs=1e-4)
    assert float(loss.detach()) < 0.03


def test_the_modalities_count_alike():
    torch.manual_seed(0)
    embeddings = torch.randn(6, 5)
    warm_start = make(embeddings)
    tokens, lengths, *text = random_inputs({"audio": [7, 5], "video": [4, 4]})
    both = warm_start.ctc(tokens, lengths, *text, embeddings)
    each = [warm_start.ctc({m: tokens[m]}, {m: lengths[m]}, *text, embeddings) for m in tokens]
    torch.testing.assert_close(both, sum(each) / 2)


def test_a_restricted_vocabulary_is_that_of_the_other_tokens_at_no_probability():
    """Against PyTorch's CTC over all tokens, the unused ones with logits of minus infinity."""
    torch.manual_seed(0)
    embeddings = torch.randn(6, 5)
    warm_start = make(embeddings)
    nn.init.constant_(warm_start.log_scale, math.log(0.7))
    tokens, lengths, text, text_lengths = random_inputs({"audio": [7, 5]})
    everything = warm_start.ctc(tokens, lengths, text, text_lengths, embeddings)
    warm_start.restrict_to([4, 2, 0, 1, 4])
    loss = warm_start.ctc(tokens, lengths, text, text_lengths, embeddings)
    logits = 0.7 * tokens["audio"] @ torch.cat([torch.zeros(1, 5), embeddings]).T
    logits[:, :, [1 + 3, 1 + 5]] = -math.inf
    expected = nn.CTCLoss(reduction="sum")(
        logits.log_softmax(-1).transpose(0, 1), text.clamp_min(0) + 1, lengths["audio"],
        text_lengths,
    ) / 5  # fmt: skip
    torch.testing.assert_close(loss, expected)
    assert loss < everything


def test_a_text_with_a_token_beyond_the_vocabulary_has_all_tokens():
    torch.manual_seed(0)
    embeddings = torch.randn(6, 5)
    warm_start = make(embeddings)
    inputs = (*random_inputs({"audio": [7, 5]}), embeddings)
    everything = warm_start.ctc(*inputs)
    for vocabulary in ([0, 1, 4], [0, 1, 2], [3, 5]):
        warm_start.restrict_to(vocabulary)
        assert torch.equal(warm_start.ctc(*inputs), everything)


def test_padding_and_texts_that_do_not_fit_have_no_influence():
    torch.manual_seed(0)
    embeddings = torch.randn(6, 5)
    warm_start = make(embeddings)
    tokens, lengths, text, text_lengths = random_inputs({"audio": [7, 2]})  # "1 1" needs 3
    loss = warm_start.ctc(tokens, lengths, text, text_lengths, embeddings)
    tokens["audio"] = torch.cat([tokens["audio"][:1], torch.full((1, 7, 5), 9.0)])
    assert torch.equal(loss, warm_start.ctc(tokens, lengths, text, text_lengths, embeddings))
    text[1, 2] = 77
    assert torch.equal(loss, warm_start.ctc(tokens, lengths, text, text_lengths, embeddings))
    loss.backward()
    assert torch.isfinite(warm_start.blank.grad).all()


def test_autocast_does_not_round_the_loss():
    torch.manual_seed(0)
    embeddings = torch.randn(6, 5)
    warm_start = make(embeddings)
    inputs = random_inputs({"audio": [7, 5]})
    want = warm_start.ctc(*inputs, embeddings)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(warm_start.ctc(*inputs, embeddings), want)
