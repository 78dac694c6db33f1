import pytest
import torch
from torch import nn
from torch.nn import functional as F

from espnet_smop.base_model import freeze
from espnet_smop.lora import inject_lora
from espnet_smop.packed_linear import PackedLinear, pack_linears


@pytest.mark.parametrize("shape", [(256,), (1, 256), (15, 256), (2, 3, 256), (0, 256)])
@pytest.mark.parametrize("bias", [False, True])
def test_equals_the_product(shape, bias):
    torch.manual_seed(0)
    weight, x = torch.randn(130, 256), torch.randn(shape)
    b = torch.randn(130) if bias else None
    packed = PackedLinear(weight, b)
    expected = F.linear(x.double(), weight.double(), b if b is None else b.double()).float()
    torch.testing.assert_close(packed(x), expected, atol=1e-4, rtol=1e-5)
    assert torch.equal(packed.weight, weight)  # bit by bit


def test_takes_inputs_of_any_layout():
    torch.manual_seed(0)
    weight, x = torch.randn(128, 256), torch.randn(2, 256, 5).transpose(1, 2)
    torch.testing.assert_close(PackedLinear(weight)(x), F.linear(x, weight), atol=1e-4, rtol=1e-5)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(128, 128)
        self.fc = nn.Linear(128, 256)
        self.small = nn.Linear(256, 64)


def test_frozen_layers_are_packed_unless_they_are_small_or_have_lora():
    torch.manual_seed(0)
    frozen, trained = freeze(Model()), Model()
    inject_lora(frozen, {"r": 4, "target_modules": ["q_proj"]})
    x, weight = torch.randn(7, 128), frozen.fc.weight.clone()
    with torch.no_grad():
        before = frozen.q_proj(x), frozen.small(frozen.fc(x))
        both = nn.ModuleList([frozen, trained])
        pack_linears(both)
        after = frozen.q_proj(x), frozen.small(frozen.fc(x))
    torch.testing.assert_close(after, before)
    packed = [name for name, m in both.named_modules() if isinstance(m, PackedLinear)]
    assert packed == ["0.fc"]
    assert torch.equal(frozen.fc.weight, weight)


def test_half_precision_stays_as_it_is():
    model = freeze(Model().bfloat16())
    pack_linears(model)
    assert not any(isinstance(m, PackedLinear) for m in model.modules())
