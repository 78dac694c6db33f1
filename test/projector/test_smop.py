"""SMoP against golden numbers of the public code, and the projectors' promises."""

from pathlib import Path

import pytest
import torch

from espnet_smop.projector.dispatch import DISPATCHES
from espnet_smop.projector.public_names import load_public, to_public
from espnet_smop.projector.smop import SMoPProjector

GOLDEN = Path(__file__).parents[1] / "golden" / "smop_topk_moe.pt"


@pytest.fixture(scope="module")
def golden():
    return torch.load(GOLDEN, weights_only=True)


def golden_projector(golden, dispatch):
    projector = SMoPProjector(
        {"audio": 24},
        40,
        {"audio": 2},
        routing="jejr",
        num_experts=4,
        top_k=2,
        hidden_size=32,
        downsample={"audio": 1},
        dispatch=dispatch,
        load_balancing_weight=1.0,
        router_z_weight=0.0,
    )
    load_public(golden["state_dict"], projector.mixture.router, projector.mixture.pool)
    return projector


@pytest.mark.parametrize("dispatch", ["auto", *DISPATCHES])
def test_golden(golden, dispatch):
    projector = golden_projector(golden, dispatch)
    x = golden["input"].clone().requires_grad_()
    out = projector({"audio": x}, {"audio": torch.full((3,), 17)})
    y = out.tokens["audio"]
    torch.testing.assert_close(y, golden["output"], atol=1e-5, rtol=1e-5)
    for name, value in (("loss_balance", "load_balancing_loss"), ("loss_z", "router_z_loss")):
        torch.testing.assert_close(out.stats[name], golden[value], atol=1e-5, rtol=1e-5)
    (y * golden["random_for_grad"]).sum().backward()
    close = dict(atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(x.grad, golden["grad_input"], **close)
    for p in projector.parameters():
        p.data, p.grad = p.grad, None
    grads = to_public(projector.mixture.router, projector.mixture.pool)
    assert grads.keys() == golden["grad_params"].keys()
    for name, grad in golden["grad_params"].items():
        torch.testing.assert_close(grads[name], grad, **close)


@pytest.mark.parametrize("loss,weights", [("load_balancing", (1.0, 0.0)), ("router_z", (0.0, 1.0))])
def test_golden_gradients_of_auxiliary_losses(golden, loss, weights):
    projector = golden_projector(golden, "auto")
    projector.load_balancing_weight, projector.router_z_weight = weights
    x = golden["input"].clone().requires_grad_()
    projector({"audio": x}, {"audio": torch.full((3,), 17)}).aux_loss.backward()
    want = golden[f"grad_{loss}"]
    torch.testing.assert_close(x.grad, want["input"], atol=1e-4, rtol=1e-4)
    grad = projector.mixture.router.gate.weight.grad
    torch.testing.assert_close(grad, want["gate_weight"], atol=1e-4, rtol=1e-4)
