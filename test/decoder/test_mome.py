"""Mixtures of adapters in the LLM, against numbers of the public code (``golden/mome_adapter.pt``)
and against plain torch."""

import copy
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from espnet_smop.base_model import frozen_keys
from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.decoder.mome import MixtureOfAdapters
from espnet_smop.view_steps import Views

GOLDEN = Path(__file__).parents[1] / "golden" / "mome_adapter.pt"
TEXTS = ["place blue at f two now", "lay", "set red with q zero again"]
MOME = {"num_experts": 5, "top_k": 2, "bottleneck": 3}
PLACES = ["mhsa", "ffn", "layer"]


@pytest.fixture
def make_decoder(make_llm):
    def make(*, perturb=True, **options):
        torch.manual_seed(0)
        options = {"lora": {"r": 4, "alpha": 8}, "mome": MOME} | options
        decoder = LLMDecoder(make_llm("llama3"), **options)
        if perturb and decoder.mome is not None:  # they begin as zero
            for name, parameter in decoder.mome.named_parameters():
                if name.endswith(("w2", "b2")):
                    torch.nn.init.normal_(parameter, std=0.3)
        return decoder

    return make


def targets(decoder, texts=TEXTS):
    ids = [torch.tensor(decoder.encode_text(t), dtype=torch.long) for t in texts]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=-1)
    return padded, torch.tensor([len(i) for i in ids])


def golden_state(tensors):
    """Stack the public code's experts: its names → those of `MixtureOfAdapters`."""
    state = {"routers.shared.gate.weight": tensors["gate.weight"]}
    for ours, theirs in (("experts", "experts"), ("shared", "shared_experts")):
        for n, linear in (("1", "linear_downsample"), ("2", "linear_upsample")):
            for ours_kind, kind in (("w", "weight"), ("b", "bias")):
                names = [k for k in tensors if k.startswith(f"{theirs}.")]
                experts = sorted({int(k.split(".")[1]) for k in names})
                state[f"{ours}.{ours_kind}{n}"] = torch.stack(
                    [tensors[f"{theirs}.{e}.{linear}.{kind}"] for e in experts]
                )
    return state


def test_golden():
    golden = torch.load(GOLDEN, weights_only=True)["main"]
    mixture = MixtureOfAdapters(24, num_experts=6, num_shared=1, bottleneck=4)
    mixture.add_routers({"shared": 2})
    mixture.load_state_dict(golden_state(golden["state_dict"]))
    x = golden["input"].clone().requires_grad_()
    y, routing = mixture(x)
    close = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(y, golden["output"], **close)
    torch.testing.assert_close(routing.logits, golden["router_logits"], **close)
    assert torch.equal(routing.indices, golden["selected_experts"])
    torch.testing.assert_close(routing.weights, golden["renormalised_topk_weights"], **close)

    (y * golden["random_for_grad"]).sum().backward()
    torch.testing.assert_close(x.grad, golden["grad_input"], **close)
    gradients = {name: p.grad for name, p in mixture.named_parameters()}
    torch.testing.assert_close(gradients, golden_state(golden["grad_params"]), **close)


def test_golden_balance(make_decoder):
    golden = torch.load(GOLDEN, weights_only=True)["main"]
    mixture = MixtureOfAdapters(24, num_experts=6, num_shared=1, bottleneck=4)
    mixture.add_routers({"shared": 2})
    mixture.load_state_dict(golden_state(golden["state_dict"]))
    x = golden["input"].clone().requires_grad_()
    _, routing = mixture(x)
    balance = make_decoder().mome.balance([routing])
    torch.testing.assert_close(balance, golden["load_balancing_loss"], atol=1e-5, rtol=0)
    balance.backward()
    expected = golden["grad_load_balancing"]
    torch.testing.assert_close(x.grad, expected["input"], atol=1e-5, rtol=0)
    gate = mixture.routers["shared"].gate.weight
    torch.testing.assert_close(gate.grad, expected["gate_weight"], atol=1e-5, rtol=0)


def by_definition(mixture, x, top_k, router="shared"):
    """The mixture's output for ``(B, T, D)``, with all experts computed."""

    def outputs(pool):
        hidden = torch.einsum("nhd,btd->btnh", pool.w1, x) + pool.b1
        return torch.einsum("neh,btnh->btne", pool.w2, F.gelu(hidden)) + pool.b2

    probs = (x @ mixture.routers[router].gate.weight.T).softmax(-1)
    kept = probs * (probs >= probs.topk(top_k).values[..., -1:])
    gates = kept / kept.sum(-1, keepdim=True)
    return (gates[..., None] * outputs(mixture.experts)).sum(2) + outputs(mixture.shared).sum(2)


@pytest.mark.parametrize("place", PLACES)
def test_hidden_states_with_adapters_in_each_place(make_decoder, place):
    decoder = make_decoder(mome=MOME | {"place": place, "num_shared": 2}, perturb=True)
    plain = make_decoder(mome=None).llm.base_model
    x = torch.randn(2, 9, decoder.embed_size, generator=torch.Generator().manual_seed(1))
    got = decoder.hidden_states(x, torch.ones(2, 9, dtype=torch.long))

    positions = torch.arange(9)[None]
    rotary = plain.rotary_emb(x, positions)
    for layer, mixture in zip(plain.layers, decoder.mome.layers, strict=True):
        before = layer.input_layernorm(x)
        attended, _ = layer.self_attn(before, position_embeddings=rotary, attention_mask=None)
        y = x + attended
        if place == "mhsa":
            y = y + by_definition(mixture, before, 2)
        middle = layer.post_attention_layernorm(y)
        z = y + layer.mlp(middle)
        if place == "ffn":
            z = z + by_definition(mixture, middle, 2)
        if place == "layer":
            z = z + by_definition(mixture, before, 2)
        x = z
    torch.testing.assert_close(got, plain.norm(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("place", PLACES)
def test_begins_as_the_base_llm_and_every_parameter_learns(make_decoder, media, place):
    decoder = make_decoder(mome=MOME | {"place": place}, perturb=False)
    plain = make_decoder(mome=None)
    plain.delimiters.data.copy_(decoder.delimiters)
    tokens, lengths = media([7, 12, 3], decoder.embed_size)
    expected = plain(tokens, lengths, *targets(decoder))
    out = decoder(tokens, lengths, *targets(decoder))
    assert torch.equal(out.loss, expected.loss)

    optimizer = torch.optim.SGD(decoder.mome.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        out = decoder(tokens, lengths, *targets(decoder))
        (out.loss + out.aux_loss).backward()
        optimizer.step()
    assert all(p.grad.abs().sum() > 0 for p in decoder.mome.parameters())


def test_without_mixtures_there_is_no_auxiliary_loss(make_decoder, media):
    decoder = make_decoder(mome=None)
    out = decoder(*media([7, 12, 3], decoder.embed_size), *targets(decoder))
    assert out.aux_loss == 0.0 and not out.routings and set(out.stats) == {"loss_ce", "acc"}


def test_the_balance_loss_is_over_the_valid_tokens_of_all_layers(make_decoder, media):
    decoder = make_decoder(mome=MOME | {"load_balancing_weight": 0.5}).eval()
    tokens, lengths = media([7, 12, 3], decoder.embed_size)
    text, text_lengths = targets(decoder)
    out = decoder(tokens, lengths, text, text_lengths)
    assert len(out.routings) == len(decoder.llm.base_model.layers) == 2
    fed = sum(map(len, decoder._prefixes(tokens, lengths))) + int(text_lengths.sum())
    assert all(int(r.valid.sum()) == fed for r in out.routings)

    probs, chosen = [], []
    for i, text_length in enumerate(text_lengths):  # one by one there is no padding
        single = {m: x[i : i + 1, : lengths[m][i]] for m, x in tokens.items()}
        alone = decoder(
            single,
            {m: n[i : i + 1] for m, n in lengths.items()},
            text[i : i + 1, :text_length],
            text_length[None],
        )
        probs += [r.logits.softmax(-1) for r in alone.routings]
        chosen += [F.one_hot(r.indices, 5).sum(1) for r in alone.routings]
    naive = 5 * (torch.cat(chosen).float().mean(0) * torch.cat(probs).mean(0)).sum()
    torch.testing.assert_close(out.stats["loss_mome_balance"], naive)
    torch.testing.assert_close(out.aux_loss, 0.5 * naive)


@pytest.mark.parametrize("beam_size", [1, 4])
def test_generation_equals_teacher_forcing(make_decoder, media, beam_size):
    decoder = make_decoder().eval()
    tokens, lengths = media([7, 12, 3], decoder.embed_size)
    nbests = decoder.generate(tokens, lengths, beam_size=beam_size, max_new_tokens=40)
    finished = []
    for i, (best, *_) in enumerate(nbests):
        single = {m: x[i : i + 1, : lengths[m][i]] for m, x in tokens.items()}
        length = {m: n[i : i + 1] for m, n in lengths.items()}
        ((alone, *_),) = decoder.generate(single, length, beam_size=beam_size, max_new_tokens=40)
        assert alone.ids == best.ids
        if best.finished:
            finished.append(i)
            out = decoder(single, length, torch.tensor([best.ids]), torch.tensor([len(best.ids)]))
            log_prob = -float(out.loss.detach() * out.num_tokens)
            assert best.score == pytest.approx(log_prob, abs=1e-3)
    assert finished


def test_a_copy_has_its_own_adapters(make_decoder, media):
    decoder = make_decoder()
    tokens, lengths = media([7, 12, 3], decoder.embed_size)
    before = decoder(tokens, lengths, *targets(decoder)).loss
    other = copy.deepcopy(decoder)
    for parameter in other.mome.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(decoder(tokens, lengths, *targets(decoder)).loss, before)
    assert not torch.equal(other(tokens, lengths, *targets(decoder)).loss, before)


def test_only_trained_parameters_are_saved(make_decoder):
    decoder = make_decoder()
    plain = make_decoder(mome=None)
    trained = {n for n, p in decoder.named_parameters() if p.requires_grad}
    assert decoder.state_dict().keys() - frozen_keys(decoder) == trained
    more = trained - {n for n, p in plain.named_parameters() if p.requires_grad}
    assert more == {f"mome.{n}" for n in decoder.mome.state_dict()}
    assert decoder.fingerprints() == plain.fingerprints()


RATES = {"audio": (4, 16), "video": (2, 5)}
TOP_K = {"a4_v2": 4, "a16_v2": 3, "a4_v5": 2, "a16_v5": 1}


@pytest.mark.parametrize("router", ["shared", "per_rate"])
def test_rates_choose_router_and_k(make_decoder, router):
    views = Views({"avsr": 1.0}, RATES).all
    decoder = make_decoder(mome=MOME | {"top_k": TOP_K, "router": router})
    decoder.prepare(views)
    routers = decoder.mome.layers[0].routers
    assert set(routers) == (set(TOP_K) if router == "per_rate" else {"shared"})
    x = torch.randn(2, 9, decoder.embed_size, generator=torch.Generator().manual_seed(1))
    mlp, mixture = decoder.llm.base_model.layers[0].mlp, decoder.mome.layers[0]
    plain = make_decoder(mome=None).llm.base_model.layers[0].mlp
    for view in views:
        tag = view.rates_tag
        with decoder.active(view):
            y = mlp(x)
        name = tag if router == "per_rate" else "shared"
        torch.testing.assert_close(y, plain(x) + by_definition(mixture, x, TOP_K[tag], name))
    tokens = {"audio": x, "video": x}
    with pytest.raises(ValueError, match="call it `with decoder.active"):
        decoder.generate(tokens, dict.fromkeys(tokens, torch.tensor([9, 9])), max_new_tokens=2)


@pytest.mark.parametrize(
    "mome, rates, message",
    [
        (
            {"top_k": {"a4_v2": 2}},
            RATES,
            "for the rates a4_v2, but the model has a4_v2, a16",
        ),
        ({"top_k": {4: 2}}, {}, "for the rates 4, but the model has a single rate"),
        ({"router": "per_rate"}, {}, "mome.router is 'per_rate', but the projector has a single"),
    ],
)
def test_rates_have_to_be_those_of_the_model(make_decoder, mome, rates, message):
    decoder = make_decoder(mome=MOME | mome)
    with pytest.raises(ValueError, match=message):
        decoder.prepare(Views({"avsr": 1.0}, rates).all)


@pytest.mark.parametrize("router", ["shared", "per_rate"])
def test_gradient_checkpointing_recomputes_the_same_routing(make_decoder, media, router):
    """Of a padded batch, whose padding is sent to no expert, at two rates before the gradient."""
    views = Views({"avsr": 1.0}, RATES).all
    gradients = []
    for checkpointing in (False, True):
        decoder = make_decoder(
            perturb=False,
            mome=MOME | {"top_k": TOP_K, "router": router},
            gradient_checkpointing=checkpointing,
        )
        decoder.prepare(views)
        torch.manual_seed(1)
        for parameter in decoder.mome.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        tokens, lengths = media([7, 12, 3], decoder.embed_size)
        total = 0.0
        for view in (views[0], views[3]):
            with decoder.active(view):
                out = decoder(tokens, lengths, *targets(decoder))
            assert len(out.routings) == 2
            total = total + out.loss + out.aux_loss
        total.backward()
        gradients.append({n: p.grad for n, p in decoder.mome.named_parameters()})
    unused = {n.split(".")[3] for n, g in gradients[0].items() if g is None}
    assert unused == ({"a16_v2", "a4_v5"} if router == "per_rate" else set())
    torch.testing.assert_close(gradients[0], gradients[1], atol=0, rtol=0)


def test_bfloat16_base_and_autocast(make_decoder, media):
    decoder = make_decoder(dtype="bfloat16")
    assert {p.dtype for p in decoder.mome.parameters()} == {torch.float32}
    tokens, lengths = media([7, 12, 3], decoder.embed_size)
    expected = make_decoder()(tokens, lengths, *targets(decoder)).loss
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = decoder(tokens, lengths, *targets(decoder))
        torch.testing.assert_close(out.loss, expected, atol=0.1, rtol=0.05)


@pytest.mark.parametrize(
    "mome, message",
    [
        ({"top_k": 9}, "top_k is 9, but there are 5 experts"),
        ({"top_k": [2]}, "top_k is .2., expected a whole number"),
        ({"place": "mlp"}, "mome.place is 'mlp', expected one of: mhsa, ffn, layer"),
        ({"num_shared": -1}, "mome.num_shared is -1"),
        ({"botleneck": 3}, "unknown key 'botleneck'.*bottleneck"),
    ],
)
def test_wrong_settings_are_named(make_decoder, mome, message):
    with pytest.raises(ValueError, match=message):
        make_decoder(mome=MOME | mome)
