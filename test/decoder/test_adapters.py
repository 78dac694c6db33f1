"""LoRA of its own for each task or rate, against adapters that are added by hand."""

import pytest
import torch

from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.view_steps import Views

TASKS = {"asr": 1.0, "vsr": 1.0, "avsr": 1.0}
RATES = {"audio": (4, 16), "video": (2, 5)}


def build(make_llm, *, rates=None, seed=0, **lora):
    options = {k: lora.pop(k) for k in ("gradient_checkpointing",) if k in lora}
    decoder = LLMDecoder(make_llm("llama3"), lora={"r": 4, "alpha": 2, **lora}, **options)
    views = Views(TASKS, rates).all
    decoder.prepare(views)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return decoder, {view.tag: view for view in views}


def names_of(decoder):
    return {n.split(".")[-2] for n, _ in decoder.named_parameters() if "lora_" in n}


@pytest.mark.parametrize(
    "lora, names",
    [
        ({}, {"default"}),
        ({"shared": True}, {"default"}),
        ({"per": "task"}, {"asr", "vsr", "avsr"}),
        ({"per": "task", "shared": True}, {"asr", "vsr", "avsr", "shared"}),
        (
            {"per": "rates"},
            {"a4", "a16", "v2", "v5", "a4_v2", "a4_v5", "a16_v2", "a16_v5"},
        ),
    ],
)
def test_there_is_an_adapter_for_each(make_llm, lora, names):
    decoder, _ = build(make_llm, rates=RATES, **lora)
    assert names_of(decoder) == names
    assert all(p.requires_grad for n, p in decoder.named_parameters() if "lora_" in n)


@pytest.mark.parametrize("shared", [False, True])
def test_a_view_adds_its_own_adapter_and_the_shared_one(make_llm, media, shared):
    decoder, views = build(make_llm, per="task", shared=shared)
    plain = LLMDecoder(make_llm("llama3"), lora=None)
    with torch.no_grad():
        plain.delimiters.copy_(decoder.delimiters)
    tokens, lengths = media((5, 3), decoder.embed_size)
    text, text_lengths = torch.tensor([[3, 4, 5], [6, 7, 0]]), torch.tensor([3, 2])
    losses = {}
    for tag, view in views.items():
        with decoder.active(view):
            losses[tag] = decoder(tokens, lengths, text, text_lengths).loss
        for name, module in plain.llm.named_modules():
            if name.endswith(("q_proj", "v_proj")):
                adapted = decoder.llm.get_submodule(name)
                delta = sum(
                    adapted.lora_B[n].weight @ adapted.lora_A[n].weight * 2 / 4
                    for n in [tag, *(["shared"] if shared else [])]
                )
                module.weight.data = adapted.base_layer.weight + delta
        expected = plain(tokens, lengths, text, text_lengths).loss
        torch.testing.assert_close(losses[tag], expected, atol=1e-5, rtol=0)
    assert len({round(float(loss), 4) for loss in losses.values()}) == 3


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_the_adapters_of_each_view_alone(make_llm, media, checkpointing):
    """Also where the layers are recomputed, when the views' contexts have ended."""
    text, text_lengths = torch.tensor([[3, 4, 5]]), torch.tensor([3])
    gradients = []
    for recompute in (False, checkpointing):
        decoder, views = build(make_llm, per="task", shared=True, gradient_checkpointing=recompute)
        decoder.train()
        tokens, lengths = media((5,), decoder.embed_size)
        torch.manual_seed(0)
        decoder.delimiters.data = torch.randn(decoder.delimiters.shape)
        total = 0.0
        for tag in ("asr", "avsr"):
            with decoder.active(views[tag]):
                total = total + decoder(tokens, lengths, text, text_lengths).loss
        total.backward()
        gradients.append({n: p.grad for n, p in decoder.named_parameters() if p.requires_grad})
    without = {n.split(".")[-2] for n, g in gradients[1].items() if g is None}
    assert without == {"vsr"}
    torch.testing.assert_close(gradients[1], gradients[0])


def test_views_nest_and_end(make_llm, media):
    decoder, views = build(make_llm, per="task")
    with decoder.active(views["asr"]):
        with decoder.active(views["vsr"]):
            assert decoder.active_view.view is views["vsr"]
        assert decoder.active_view.view is views["asr"]
        assert decoder.llm.base_model.layers[0].self_attn.q_proj.active_adapters == ["asr"]
    tokens, lengths = media((5,), decoder.embed_size)
    with pytest.raises(ValueError, match="adapters for each task or rates: call it `with"):
        decoder.generate(tokens, lengths, max_new_tokens=2)


@pytest.mark.parametrize(
    "lora, message",
    [
        ({"per": "layer"}, "per is 'layer', expected task, rates or null"),
        ({"per": "rates"}, "the projector has a single rate"),
    ],
)
def test_wrong_settings_are_named(make_llm, lora, message):
    with pytest.raises(ValueError, match=message):
        build(make_llm, **lora)
