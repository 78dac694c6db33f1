import pytest
import torch

from espnet_smop.decoder import llm as llm_module
from espnet_smop.decoder import merged_lora as module
from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.decoder.merged_lora import merged_lora
from espnet_smop.packed_linear import PackedLinear
from espnet_smop.view_steps import Views

LORA = {"r": 4, "alpha": 8}
TASKS = {"asr": 1.0, "vsr": 1.0, "avsr": 1.0}


def build(make_llm, **lora):
    torch.manual_seed(0)
    decoder = LLMDecoder(make_llm("llama3"), lora={**LORA, **lora})
    views = Views(TASKS, None).all
    decoder.prepare(views)
    for name, parameter in decoder.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return decoder, views


def run(decoder):
    """Hidden states of a random sequence, and the number of products of adapters."""
    products = []
    hooks = [
        m.register_forward_hook(lambda *_: products.append(1))
        for name, m in decoder.named_modules()
        if ".lora_A." in name
    ]
    x = torch.randn(2, 9, decoder.embed_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden = decoder.hidden_states(x, torch.ones(2, 9, dtype=torch.long))
    for hook in hooks:
        hook.remove()
    return hidden, len(products)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("lora", [{}, {"per": "task"}, {"per": "task", "shared": True}])
def test_equals_adapters_beside_the_layers(make_llm, monkeypatch, lora, packed):
    monkeypatch.setattr(module, "gains", lambda _: packed)
    decoder, views = build(make_llm, **lora)
    seen = []
    for view in views:
        with decoder.active(view):
            before, products = run(decoder)
            assert products
            with merged_lora(decoder.llm):
                merged, products = run(decoder)
                kinds = {type(m) for m in decoder.modules()}
            assert not products and (PackedLinear in kinds) == packed
            torch.testing.assert_close(merged, before, atol=1e-5, rtol=1e-5)
            after, _ = run(decoder)
            assert torch.equal(after, before)
            seen.append(before)
    assert lora == {} or not torch.allclose(seen[0], seen[1], atol=1e-3)


def test_nothing_of_the_model_changes(make_llm):
    decoder, _ = build(make_llm)
    modules = dict(decoder.named_modules())
    weights = {n: (p, p.clone()) for n, p in decoder.named_parameters()}
    with pytest.raises(RuntimeError, match="stop"), merged_lora(decoder.llm):
        assert dict(decoder.named_modules()).keys() == modules.keys()
        raise RuntimeError("stop")
    assert dict(decoder.named_modules()) == modules
    after = dict(decoder.named_parameters())
    assert all(after[n] is p and torch.equal(p, value) for n, (p, value) in weights.items())


def test_bfloat16_is_as_accurate_merged_as_not(make_llm):
    decoder, _ = build(make_llm)
    expected, _ = run(decoder)
    decoder.llm.bfloat16()
    for name, parameter in decoder.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    beside, _ = run(decoder)
    with merged_lora(decoder.llm):
        merged, products = run(decoder)
    assert not products and merged.dtype is torch.bfloat16
    error, own = ((x.float() - expected).norm() for x in (merged, beside))
    assert error < 1.2 * own


def test_a_search_uses_merged_adapters_and_finds_the_same(make_llm, media, monkeypatch):
    decoder, _ = build(make_llm)
    tokens, lengths = media([9, 4, 13], decoder.embed_size)
    products = []
    for name, m in decoder.named_modules():
        if ".lora_A." in name:
            m.register_forward_hook(lambda *_: products.append(1))
    settings = {"beam_size": 4, "max_new_tokens": 12}
    merged = decoder.generate(tokens, lengths, **settings)
    assert not products
    monkeypatch.setattr(llm_module, "merged_lora", lambda llm: torch.no_grad())
    beside = decoder.generate(tokens, lengths, **settings)
    assert products
    assert [h[0].ids for h in merged] == [h[0].ids for h in beside]


def test_a_decoding_merges_once(make_llm, monkeypatch):
    decoder, (view, other, _) = build(make_llm, per="task")
    made = []
    together = module._merge
    monkeypatch.setattr(module, "_merge", lambda *args: made.append(1) or together(*args))
    modules = dict(decoder.named_modules())
    with decoder.active(view):
        expected, products = run(decoder)
        with merged_lora(decoder.llm):
            once, alone = len(made), run(decoder)
    with decoder.active(view), decoder.repeated():
        for _ in range(2):
            with decoder.active(view), merged_lora(decoder.llm):
                found = run(decoder)
            assert torch.equal(found[0], alone[0]) and found[1] == 0
        assert len(made) == 2 * once > 0
        with (
            decoder.active(other),
            pytest.raises(RuntimeError, match=r"\['asr'\] are merged, but \['vsr'\] are active"),
            merged_lora(decoder.llm),
        ):
            pass
        assert torch.equal(run(decoder)[0], alone[0])
    assert dict(decoder.named_modules()) == modules
    with decoder.active(view):
        assert torch.equal(run(decoder)[0], expected) and run(decoder)[1] == products
