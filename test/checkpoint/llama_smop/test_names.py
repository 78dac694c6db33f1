from pathlib import Path

import pytest
import torch

from espnet_smop.checkpoint.llama_smop.names import (
    CheckpointError,
    copy_from,
    projector_weights,
)
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
    copy_from(state, projector_weights(router, pool))
    back = projector_weights(router, pool)
    assert list(back) == list(state)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_what_does_not_fit_is_named():
    state = projector_weights(*parts())
    larger, smaller = (projector_weights(*parts(num_experts=n)) for n in (5, 3))
    with pytest.raises(CheckpointError, match=r"gate.weight has shape \(4, 24\), expected \(5"):
        copy_from(state, larger)
    with pytest.raises(CheckpointError, match=r"has no experts\.4\.0\.weight"):
        copy_from(state | {"gate.weight": larger["gate.weight"]}, larger)
    assert state.keys() > smaller.keys()
    assert state.keys() - projector_weights(*parts(layer_norm=False)).keys() == {
        f"experts.{e}.3.{kind}" for e in range(4) for kind in ("weight", "bias")
    }
    with pytest.raises(CheckpointError, match=r"shape \(2,\), expected \(40,\)"):
        copy_from(state | {"experts.1.2.bias": torch.zeros(2)}, state)


def test_a_dense_projector_has_the_names_of_its_layers():
    router = NoRouter()
    pool = ExpertPool(
        input_size=24, hidden_size=32, output_size=40, num_experts=1, layer_norm=False
    )
    dense = torch.nn.Sequential(torch.nn.Linear(24, 32), torch.nn.ReLU(), torch.nn.Linear(32, 40))
    copy_from(dense.state_dict(), projector_weights(router, pool))
    x = torch.randn(5, 24)
    [expert] = pool.stacked(torch.float32).unbind()
    torch.testing.assert_close(expert(x), dense(x))
    back = projector_weights(router, pool)
    assert list(back) == list(dense.state_dict())
    assert all(torch.equal(back[k], v) for k, v in dense.state_dict().items())
