from pathlib import Path

import pytest
import torch

from espnet_smop.checkpoint.llama_smop.projector_names import load_public, to_public
from espnet_smop.projector.experts import ExpertPool
from espnet_smop.projector.router import NoRouter, Router

GOLDEN = Path(__file__).parents[2] / "golden" / "smop_topk_moe.pt"


def parts(*, layer_norm=True, num_experts=4):
    router = Router(input_size=24, num_experts=num_experts, top_k=2)
    pool = ExpertPool(
        input_size=24,
        hidden_size=32,
        output_size=40,
        num_experts=num_experts,
        layer_norm=layer_norm,
    )
    return router, pool


def test_round_trip_is_identical():
    state = torch.load(GOLDEN, weights_only=True)["state_dict"]
    router, pool = parts()
    load_public(state, router, pool)
    back = to_public(router, pool)
    assert list(back) == list(state)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_what_does_not_fit_is_named():
    state = to_public(*parts())
    with pytest.raises(ValueError, match=r"has no experts\.4\.0\.bias"):
        load_public(state | {"gate.weight": state["gate.weight"]}, *parts(num_experts=5))
    with pytest.raises(ValueError, match=r"experts\.0\.3\.bias.*do not fit"):
        load_public(state, *parts(layer_norm=False))
    with pytest.raises(ValueError, match=r"shape \(2,\), expected \(40,\)"):
        load_public(state | {"experts.1.2.bias": torch.zeros(2)}, *parts())


def test_a_dense_projector_has_the_names_of_its_layers():
    router = NoRouter()
    pool = ExpertPool(
        input_size=24, hidden_size=32, output_size=40, num_experts=1, layer_norm=False
    )
    dense = torch.nn.Sequential(torch.nn.Linear(24, 32), torch.nn.ReLU(), torch.nn.Linear(32, 40))
    load_public(dense.state_dict(), router, pool)
    x = torch.randn(5, 24)
    [expert] = pool.stacked(torch.float32).unbind()
    torch.testing.assert_close(expert(x), dense(x))
    back = to_public(router, pool)
    assert list(back) == list(dense.state_dict())
    assert all(torch.equal(back[k], v) for k, v in dense.state_dict().items())
