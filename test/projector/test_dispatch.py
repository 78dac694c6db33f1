"""Every dispatch gives the sums of the definition, and the same gradients."""

import copy
from types import SimpleNamespace

import pytest
import torch

from espnet_smop.projector import dispatch
from espnet_smop.projector.dispatch import DISPATCHES, mix
from espnet_smop.projector.experts import ExpertPool
from espnet_smop.projector.router import Router, Routing

D, H, E = 8, 16, 24


def make(num_experts, *, layer_norm=True, dtype=torch.float64, activation="relu"):
    torch.manual_seed(0)
    pool = ExpertPool(
        input_size=D,
        hidden_size=H,
        output_size=E,
        num_experts=num_experts,
        layer_norm=layer_norm,
        activation=activation,
    )
    if layer_norm:
        torch.nn.init.normal_(pool.scale)
        torch.nn.init.normal_(pool.shift)
    return pool.to(dtype)


def to_experts(indices, num_experts):
    """A routing to given experts ``(M, K)`` with random weights."""
    indices = torch.as_tensor(indices)
    valid = indices[:, 0] < num_experts
    weights = torch.rand(indices.shape, dtype=torch.float64) * valid[:, None]
    empty = torch.empty(len(indices), num_experts)
    return Routing(empty, empty, indices, weights.requires_grad_(), valid)


def by_definition(pool, x, routing):
    """One token at a time, with torch's own modules."""
    rows = []
    for token, experts, weights in zip(x, routing.indices.tolist(), routing.weights, strict=True):
        row = torch.zeros(E, dtype=x.dtype)
        for e, weight in zip(experts, weights, strict=True):
            if e == pool.num_experts:
                continue
            y = getattr(torch.nn.functional, pool.activation)(pool.w1[e] @ token + pool.b1[e])
            y = pool.w2[e] @ y + pool.b2[e]
            if pool.scale is not None:
                y = (y - y.mean()) / (y.var(correction=0) + 1e-5).sqrt()
                y = y * pool.scale[e] + pool.shift[e]
            row = row + weight * y
        rows.append(row)
    return torch.stack(rows)


def gradients(function, pool, x, routing):
    pool, x, routing = copy.deepcopy((pool, x, routing))
    x.requires_grad_()
    y = function(pool, x, routing)
    torch.manual_seed(1)
    (y * torch.randn(y.shape, dtype=torch.float64).to(y)).sum().backward()
    grads = {name: p.grad for name, p in pool.named_parameters()}
    return {"y": y.detach(), "x": x.grad, "weights": routing.weights.grad, **grads}


CASES = {
    "mixed": (4, [[0, 1], [3, 2], [1, 3], [2, 0], [1, 0], [0, 3], [1, 2]]),
    "one token": (4, [[2, 0]]),
    "an expert without a token": (3, [[0, 2], [2, 0], [0, 2]]),
    "all tokens on one expert": (4, [[3]] * 9),
    "all tokens on the first": (4, [[0]] * 5),
    "top 1": (2, [[0], [1], [1]]),
    "top 3 of 8": (8, [[7, 0, 3], [1, 2, 5], [7, 6, 0], [3, 4, 1]]),
    "every expert": (3, [[0, 1, 2], [2, 1, 0]]),
    "padding": (4, [[0, 1], [4, 4], [3, 2], [4, 4], [4, 4]]),
}


@pytest.mark.parametrize(
    "layer_norm, activation", [(True, "relu"), (False, "relu"), (False, "gelu")]
)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("how", [*DISPATCHES, "auto"])
def test_agrees_with_the_definition(how, case, layer_norm, activation):
    num_experts, indices = CASES[case]
    pool = make(num_experts, layer_norm=layer_norm, activation=activation)
    x = torch.randn(len(indices), D, dtype=torch.float64)
    routing = to_experts(indices, num_experts)
    want = gradients(by_definition, pool, x, routing)
    got = gradients(lambda *a: mix(*a, how=how), pool, x, routing)
    for name, value in want.items():
        padded = torch.isin(routing.indices, num_experts)
        if name == "weights":  # of padding: they are constants
            value, got[name] = value.masked_fill(padded, 0), got[name].masked_fill(padded, 0)
        if value is None:
            value = torch.zeros_like(got[name])
        torch.testing.assert_close(got[name], value, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_grouped_mm_agrees(case, layer_norm, dtype):
    """On a CPU it has no float64, in which the other tests would fall back to ``eager``."""
    num_experts, indices = CASES[case]
    pool = make(num_experts, layer_norm=layer_norm, dtype=dtype)
    assert dispatch.grouped_mm_applies(pool.stacked(dtype))
    with torch.no_grad():  # so that rounding does not decide which units the ReLU lets through
        pool.b1.copy_(4 * torch.randn(pool.b1.shape).sign())
    x = torch.randn(len(indices), D, dtype=dtype)
    routing = to_experts(indices, num_experts)
    want = gradients(lambda *a: mix(*a, how="eager"), pool, x, routing)
    got = gradients(lambda *a: mix(*a, how="grouped"), pool, x, routing)
    padded = torch.isin(routing.indices, num_experts)
    for grads in (want, got):
        grads["weights"] = grads["weights"].masked_fill(padded, 0)
    for name, value in want.items():
        if value is not None:
            value, error = value.abs().max(), (got[name] - value).abs().max()
            assert error < 8 * torch.finfo(dtype).eps * value.clamp(min=1), name


@pytest.mark.parametrize(
    "sizes", [{"input_size": 6}, {"hidden_size": 18}, {"output_size": 30}], ids=str
)
def test_grouped_falls_back_where_rows_begin_between_multiples_of_16_bytes(sizes):
    sizes = {"input_size": D, "hidden_size": H, "output_size": E} | sizes
    pool = ExpertPool(num_experts=4, **sizes)
    assert dispatch.grouped_mm_applies(pool.stacked(torch.float32)) is False
    indices = CASES["mixed"][1]
    routing, x = to_experts(indices, 4), torch.randn(len(indices), sizes["input_size"])
    grouped, eager = (
        gradients(lambda *a, how=how: mix(*a, how=how), pool, x, routing)
        for how in ("grouped", "eager")
    )
    torch.testing.assert_close(grouped, eager)


def test_grouped_leaves_no_row_without_an_expert(monkeypatch):
    """Such rows would be uninitialised memory, which 0 times NaN lets into the sum."""
    ends, grouped_mm = [], torch.nn.functional.grouped_mm

    def noting(x, w, *, offs):
        ends.append((len(x), int(offs[-1])))
        return grouped_mm(x, w, offs=offs)

    monkeypatch.setattr(torch.nn.functional, "grouped_mm", noting)
    num_experts, indices = CASES["padding"]
    pool = make(num_experts, dtype=torch.float32)
    mix(pool, torch.randn(len(indices), D), to_experts(indices, num_experts), how="grouped")
    assert ends == [(10, 10)] * 2


def test_auto_is_eager_on_a_cpu_and_dense_in_compiled_code(monkeypatch):
    pool, x = make(4), torch.randn(5, D, dtype=torch.float64)
    routing = to_experts([[0, 1]] * 5, 4)
    assert torch.equal(mix(pool, x, routing), mix(pool, x, routing, how="eager"))
    assert dispatch.choose(pool.stacked(torch.float32)) == "eager"
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert dispatch.choose(pool.stacked(torch.float32)) == "dense"


@pytest.mark.parametrize(
    "generation, dtype, applies",
    [(8, "bfloat16", True), (9, "bfloat16", True), (10, "bfloat16", False), (9, "float32", False)],
)
def test_a_gpu_groups_bfloat16_before_blackwell(monkeypatch, generation, dtype, applies):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (generation, 0))
    weight = torch.empty(4, 16, 16, dtype=getattr(torch, dtype))
    there = SimpleNamespace(
        is_cuda=True, device="cuda:0", dtype=weight.dtype, shape=weight.shape,
        element_size=weight.element_size,
    )  # fmt: skip
    experts = SimpleNamespace(w1=there, w2=there)
    assert dispatch.grouped_mm_applies(experts) is applies
    assert dispatch.choose(experts) == ("grouped" if applies else "eager")


@pytest.mark.parametrize("how", [*DISPATCHES, "auto"])
@pytest.mark.parametrize("indices", [torch.empty(0, 2, dtype=torch.long), [[4, 4], [4, 4]]])
def test_without_a_token_every_parameter_has_a_zero_gradient(how, indices):
    pool = make(4)
    routing = to_experts(indices, 4)
    x = torch.randn(len(indices), D, dtype=torch.float64, requires_grad=True)
    y = mix(pool, x, routing, how=how)
    assert y.shape == (len(indices), E)
    assert not y.any()
    y.sum().backward()
    for p in (x, *pool.parameters()):
        assert p.grad is not None
        assert not p.grad.any()


@pytest.mark.parametrize("how", [*DISPATCHES, "auto"])
def test_gradients_of_sum_are_no_problem(how):
    """The gradient of a sum is expanded, i.e. has stride 0."""
    pool = make(3)
    x = torch.randn(5, D, dtype=torch.float64, requires_grad=True)
    mix(pool, x, to_experts([[0, 1]] * 5, 3), how=how).sum().backward()
    assert x.grad.any()


@pytest.mark.parametrize("how", [*DISPATCHES, "auto"])
def test_autocast_computes_in_its_precision_and_gives_float32_gradients(how):
    pool = make(4, dtype=torch.float32)
    router = Router(input_size=D, num_experts=4, top_k=2)
    x = torch.randn(33, D)
    want = mix(pool, x, router(x), how="eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        routing = router(x)
        y = mix(pool, x, routing, how=how)
    assert routing.probs.dtype == torch.float32
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), want, atol=0.1, rtol=0.05)
    y.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in (*pool.parameters(), *router.parameters()))


def test_dense_compiles_without_a_graph_break():
    pool = make(4, dtype=torch.float32)
    router = Router(input_size=D, num_experts=4, top_k=2)

    def project(x, how):
        return mix(pool, x, router(x), how=how)

    compiled = torch.compile(project, fullgraph=True, backend="eager")
    x = torch.randn(21, D)
    for how in ("dense", "auto"):
        torch.testing.assert_close(compiled(x, how), project(x, "eager"))


def test_unknown_dispatch():
    with pytest.raises(ValueError, match=r"'fast'.*auto, eager, dense, grouped"):
        mix(make(2), torch.zeros(1, D), to_experts([[0]], 2), how="fast")
