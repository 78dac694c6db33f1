import pytest
import torch

from espnet_smop.projector.router import (
    Router,
    Routing,
    _packed_sums,
    auxiliary_losses,
    expert_shares,
)


def route(tokens=20, *, num_experts=4, top_k=2, normalize=True, valid=None):
    torch.manual_seed(0)
    router = Router(input_size=6, num_experts=num_experts, top_k=top_k, normalize=normalize)
    return router, router(torch.randn(tokens, 6), valid)


@pytest.mark.parametrize("normalize", [True, False])
def test_weights_are_the_largest_probabilities(normalize):
    _, routing = route(normalize=normalize)
    want = routing.probs.sort(-1, descending=True).values[:, :2]
    if normalize:
        want = want / want.sum(-1, keepdim=True)
    torch.testing.assert_close(routing.weights, want)


def test_balanced_routing_costs_k():
    """Four tokens, each sure of another pair of four experts."""
    logits = torch.full((4, 4), -20.0)
    indices = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0]])
    logits.scatter_(1, indices, 0.0)
    routing = Routing(logits, logits.softmax(-1), indices, None, torch.ones(4, dtype=torch.bool))
    balance, z = auxiliary_losses([routing])
    torch.testing.assert_close(balance, torch.tensor(2.0))
    torch.testing.assert_close(z, torch.tensor(2.0).log().square())


def test_padding_goes_nowhere_and_counts_nowhere():
    valid = torch.arange(20) % 3 > 0
    router, _ = route()
    x = torch.randn(20, 6)
    padded, packed = router(x, valid), router(x[valid])
    assert (padded.indices[~valid] == 4).all()
    assert not padded.weights[~valid].any()
    for a, b in zip(auxiliary_losses([padded]), auxiliary_losses([packed]), strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(expert_shares(padded).items(), expert_shares(packed).items(), strict=True):
        assert a == b


def test_losses_of_parts_are_those_of_the_whole():
    _, routing = route()
    whole, parts = auxiliary_losses([routing]), auxiliary_losses(routing.split([7, 0, 13]))
    torch.testing.assert_close(whole, parts)
    joined = vars(Routing.cat(routing.split([7, 0, 13])))
    assert all(torch.equal(joined[name], t) for name, t in vars(routing).items())


@pytest.mark.parametrize("tokens,valid", [(0, None), (3, torch.zeros(3, dtype=torch.bool))])
def test_without_a_token_losses_are_zero_and_have_a_gradient(tokens, valid):
    router, routing = route(tokens, valid=valid)
    balance, z = auxiliary_losses([routing])
    assert balance == z == 0
    (balance + z).backward()
    assert not router.gate.weight.grad.any()
    assert not any(expert_shares(routing).values())


def test_one_token():
    """It is all of the tokens: each of its experts has a share of 1."""
    _, routing = route(1)
    balance, z = auxiliary_losses([routing])
    torch.testing.assert_close(balance, 4 * routing.probs[0, routing.indices[0]].sum())
    torch.testing.assert_close(z, routing.logits.logsumexp(-1).square()[0])
    assert sum(expert_shares(routing).values()) == 2


def test_all_experts_may_be_chosen():
    router, routing = route(num_experts=2)
    assert router.gate.bias is None
    assert routing.indices.sort(-1).values.tolist() == [[0, 1]] * 20


def test_weights_sum_to_one_unless_asked_otherwise():
    routing = Router(input_size=6, num_experts=4, top_k=2)(torch.randn(5, 6))
    torch.testing.assert_close(routing.weights.sum(-1), torch.ones(5))


def test_losses_over_ranks_take_the_other_ranks_sums(monkeypatch):
    """The sums of both ranks are added, and so are the gradients of both ranks' losses."""
    router, mine = route()
    others = router(torch.randn(7, 6))
    want = auxiliary_losses([mine, others])
    [want_grad] = torch.autograd.grad(sum(want), mine.logits, retain_graph=True)
    theirs = _packed_sums(others, 4).detach()
    reductions = iter([lambda x: x.add_(theirs), lambda grad: grad.mul_(2)])
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda x: next(reductions)(x))
    got = auxiliary_losses([mine], over_ranks=True)
    torch.testing.assert_close(got, want)
    [grad] = torch.autograd.grad(sum(got), mine.logits)
    torch.testing.assert_close(grad, 2 * want_grad)
    assert next(reductions, None) is None


def test_shares_per_choice_sum_to_one():
    _, routing = route(50, num_experts=3)
    shares = expert_shares(routing)
    assert list(shares) == [f"{c}_{e}" for c in ("first", "second") for e in range(3)]
    for choice in ("first", "second"):
        assert sum(shares[f"{choice}_{e}"] for e in range(3)) == pytest.approx(1)
    assert shares["first_1"] == (routing.indices[:, 0] == 1).float().mean()
    _, routing = route(top_k=1)
    assert list(expert_shares(routing)) == [f"first_{e}" for e in range(4)]


def test_errors():
    with pytest.raises(ValueError, match="top_k is 5, but there are 4 experts"):
        Router(input_size=2, num_experts=4, top_k=5)
    with pytest.raises(ValueError, match="num_experts is 0"):
        Router(input_size=2, num_experts=0, top_k=1)
    with pytest.raises(ValueError, match="top_k is 0"):
        Router(input_size=2, num_experts=4, top_k=0)


def test_autocast_does_not_round_the_losses():
    _, routing = route(200)
    want = auxiliary_losses([routing])
    with torch.autocast("cpu", torch.bfloat16):
        got = auxiliary_losses([routing])
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
