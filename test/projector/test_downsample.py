import pytest
import torch

from espnet_smop.projector.downsample import DOWNSAMPLES, AveragePool, Stack


def frames(*lengths, size=2):
    """Utterances with frame t holding (10 t + 1, 10 t + 2), padded with NaN."""
    x = torch.full((len(lengths), max(lengths) + 1, size), torch.nan)
    for row, length in zip(x, lengths, strict=True):
        row[:length] = torch.arange(length)[:, None] * 10.0 + torch.arange(1, size + 1)
    return x, torch.tensor(lengths)


def test_stack_keeps_the_remainder_filled_up_with_zeros():
    tokens, lengths = Stack(2, 3)(*frames(5, 3, 1))
    assert lengths.tolist() == [2, 1, 1]
    assert tokens.tolist() == [
        [[1, 2, 11, 12, 21, 22], [31, 32, 41, 42, 0, 0]],
        [[1, 2, 11, 12, 21, 22], [0] * 6],
        [[1, 2, 0, 0, 0, 0], [0] * 6],
    ]


def test_average_of_the_remainder_is_over_its_own_frames():
    tokens, lengths = AveragePool(2, 2)(*frames(3, 4, 0))
    assert lengths.tolist() == [2, 2, 0]
    assert tokens[:, :2].tolist() == [[[6, 7], [21, 22]], [[6, 7], [26, 27]], [[0, 0], [0, 0]]]


@pytest.mark.parametrize("rate", [1, 2, 3, 4])
def test_dropping_the_remainder_is_torch_pooling(rate):
    x = torch.randn(1, 11, 5)
    tokens, lengths = AveragePool(5, rate, remainder="drop")(x, torch.tensor([11]))
    want = torch.nn.functional.avg_pool1d(x.mT, rate).mT
    assert lengths.tolist() == [11 // rate]
    torch.testing.assert_close(tokens, want)
    stacked, _ = Stack(5, rate, remainder="drop")(x, torch.tensor([11]))
    torch.testing.assert_close(stacked.unflatten(-1, (rate, 5)).mean(2), want)


@pytest.mark.parametrize("mode", DOWNSAMPLES)
@pytest.mark.parametrize("remainder", ["keep", "drop"])
def test_shorter_than_the_rate(mode, remainder):
    layer = DOWNSAMPLES[mode](2, 4, remainder=remainder)
    tokens, lengths = layer(torch.ones(1, 2, 2), torch.tensor([2]))
    assert lengths.tolist() == [1 if remainder == "keep" else 0]
    assert torch.equal(layer.num_tokens(torch.tensor([2])), lengths)
    assert tokens.shape == (1, lengths[0], layer.output_size)


def test_errors_say_what_was_expected():
    with pytest.raises(ValueError, match="rate is 0, expected a whole number of at least 1"):
        Stack(2, 0)
    with pytest.raises(ValueError, match="'cut', expected one of: keep, drop"):
        Stack(2, 2, remainder="cut")
