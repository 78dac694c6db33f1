"""A projector with several rates is, at each of them, one with that rate alone."""

import itertools

import pytest
import torch

from espnet_smop.projector.mlp import MLPProjector
from espnet_smop.projector.smop import SMoPProjector

SIZES = {"audio": 12, "video": 8}
RATES = {"audio": (4, 16), "video": (2, 5)}
PAIRS = [{"audio": a, "video": v} for v, a in itertools.product((2, 5), (4, 16))]


def make(rates, *, kind="dedr", mode="avgpool", **conf):
    downsample = {
        "mode": mode,
        **{m: list(r) if isinstance(r, tuple) else r for m, r in rates.items()},
    }
    if kind == "mlp":
        return MLPProjector(SIZES, 6, {}, hidden_size=10, downsample=downsample, **conf).double()
    options = {"routing": kind, "num_experts": 3, "hidden_size": 10, **conf}
    return SMoPProjector(SIZES, 6, {}, downsample=downsample, **options).double()


@pytest.fixture(scope="module")
def encoded():
    generator = torch.Generator().manual_seed(0)
    lengths = {"audio": torch.tensor([50, 37]), "video": torch.tensor([25, 18])}
    features = {
        m: torch.randn(2, int(n.max()), SIZES[m], generator=generator, dtype=torch.double)
        for m, n in lengths.items()
    }
    return features, lengths


def only(encoded, modalities):
    return tuple({m: part[m] for m in modalities} for part in encoded)


def at(projector, rates):
    """The projector of these rates alone, with the same weights."""
    single = make(rates, kind=projector.kind, mode=projector.mode)
    state = projector.state_dict()
    if projector.per_rate:
        pair = "_".join(f"{m[0]}{r}" for m, r in rates.items())
        own = {}
        for tag in (pair, *(f"{m[0]}{r}" for m, r in rates.items())):
            start = f"mixture.mixtures.{tag}."
            own |= {
                f"mixture.{n.removeprefix(start)}": v
                for n, v in state.items()
                if n.startswith(start)
            }
        state = own
    single.load_state_dict(state)
    return single


@pytest.mark.parametrize("per_rate, mode", [(False, "avgpool"), (True, "avgpool"), (True, "stack")])
@pytest.mark.parametrize("kind", ["mlp", "dedr", "jedr", "jejr"])
def test_at_each_rate_it_is_the_projector_of_that_rate(encoded, kind, per_rate, mode):
    projector = make(RATES, kind=kind, mode=mode, per_rate=per_rate)
    projector.kind, projector.mode = kind, mode
    assert projector.rates == RATES
    outputs = []
    for rates in PAIRS:
        single = at(projector, rates)
        for modalities in (("audio", "video"), ("audio",), ("video",)):
            chosen = {m: rates[m] for m in modalities}
            if per_rate and kind.startswith("je") and len(modalities) == 1:
                # The first pair with this rate.
                single = at(projector, next(p for p in PAIRS if chosen.items() <= p.items()))
            found = projector(*only(encoded, modalities), rates=chosen)
            expected = single(*only(encoded, modalities))
            for m in modalities:
                assert torch.equal(found.tokens[m], expected.tokens[m])
                assert torch.equal(found.lengths[m], expected.lengths[m])
                counted = projector.num_tokens(m, encoded[1][m], rates[m])
                assert torch.equal(counted, found.lengths[m])
            assert found.stats.keys() == expected.stats.keys()
            assert float(found.aux_loss) == pytest.approx(float(expected.aux_loss))
        outputs.append(found.tokens["video"].shape)
    first = at(projector, PAIRS[0])
    assert projector.num_active_parameters() == first.num_active_parameters()
    assert len(set(outputs)) == 2


def test_without_rates_it_is_the_first_pair(encoded):
    projector = make(RATES, per_rate=True)
    first = projector(*encoded, rates=PAIRS[0])
    for m, tokens in projector(*encoded).tokens.items():
        assert torch.equal(tokens, first.tokens[m])


def test_a_rate_that_it_does_not_have_is_named(encoded):
    with pytest.raises(ValueError, match="the audio rate is '3', expected one of: 4, 16"):
        make(RATES)(*encoded, rates={"audio": 3})


def test_the_weights_of_other_rates_get_no_gradient(encoded):
    projector = make(RATES, per_rate=True)
    out = projector(*encoded, rates=PAIRS[3])
    (sum(t.sum() for t in out.tokens.values()) + out.aux_loss).backward()
    used = {n.split(".")[2] for n, p in projector.named_parameters() if p.grad is not None}
    assert used == {"a16", "v5"}


def test_one_of_the_modalities_may_have_several_rates(encoded):
    projector = make({"audio": 4, "video": (2, 5)})
    assert projector.rates == {"audio": (4,), "video": (2, 5)}
    assert projector(*encoded, rates={"audio": 4, "video": 5}).lengths["video"].tolist() == [5, 4]
