import pytest
import torch

from espnet_smop.projector.fusion import DCI, Attention, MMFuser


def test_dci_joins_the_means_of_both_halves_and_the_last_layer():
    layers = [torch.full((1, 3, 2), float(i)) for i in range(6)]  # five layers and their input
    fused = DCI(input_size=2, num_layers=5)(layers, torch.tensor([3]))
    assert fused[0, 0].tolist() == [1.5, 1.5, 4.0, 4.0, 5.0, 5.0]


def test_dci_needs_two_layers_of_which_each_is_a_half():
    layers = [torch.full((1, 1, 1), float(i)) for i in range(3)]
    assert DCI(input_size=1, num_layers=2)(layers, torch.tensor([1])).tolist() == [[[1, 2, 2]]]


def test_mmfuser_adds_the_gated_attention():
    torch.manual_seed(0)
    fusion = MMFuser(input_size=16, num_layers=4)
    torch.nn.init.normal_(fusion.gate)
    layers = [torch.randn(2, 7, 16) for _ in range(5)]
    valid = torch.ones(2, 7, dtype=torch.bool)
    keys = fusion.norm_shallower(torch.cat(layers[1:4], dim=1))
    c = fusion.cross(fusion.norm_last(layers[4]), keys, valid.repeat(1, 3))
    own = fusion.self_attention(fusion.norm_cross(c), fusion.norm_cross(c), valid)
    got = fusion(layers, torch.tensor([7, 7]))
    torch.testing.assert_close(got - layers[4], fusion.gate * (c + own))


def test_mmfuser_starts_as_the_last_layer_and_every_parameter_learns():
    torch.manual_seed(0)
    fusion = MMFuser(input_size=16, num_layers=4)
    layers = [torch.randn(2, 7, 16) for _ in range(5)]
    lengths = torch.tensor([7, 4])
    torch.testing.assert_close(fusion(layers, lengths)[0], layers[-1][0])
    fusion(layers, lengths).square().sum().backward()
    assert fusion.gate.grad.any()
    torch.nn.init.ones_(fusion.gate)
    fusion(layers, lengths).square().sum().backward()
    assert all(p.grad.any() for p in fusion.parameters())


@pytest.mark.parametrize("num_layers,shallower", [(2, [0, 1]), (6, [1, 3, 4]), (24, [6, 12, 18])])
def test_mmfuser_attends_to_layers_below_the_last(num_layers, shallower):
    assert MMFuser(input_size=8, num_layers=num_layers).shallower == shallower


def test_attention_is_torchs():
    torch.manual_seed(0)
    ours = Attention(size=16, num_heads=4)
    theirs = torch.nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())
    x, source = torch.randn(2, 5, 16), torch.randn(2, 9, 16)
    valid = torch.arange(9) < torch.tensor([[9], [4]])
    want, _ = theirs(x, source, source, key_padding_mask=~valid)
    torch.testing.assert_close(ours(x, source, valid), want)


def test_errors():
    with pytest.raises(ValueError, match="1 layer"):
        DCI(input_size=4, num_layers=1)
    with pytest.raises(ValueError, match=r"8 heads.*width 12"):
        MMFuser(input_size=12, num_layers=2)
    with pytest.raises(ValueError, match="got 2 hidden states, expected 5"):
        DCI(input_size=4, num_layers=4)([torch.zeros(1, 1, 4)] * 2, torch.tensor([1]))
    with pytest.raises(ValueError, match="got 6 hidden states, expected 5"):
        MMFuser(input_size=8, num_layers=4)([torch.zeros(1, 1, 8)] * 6, torch.tensor([1]))
