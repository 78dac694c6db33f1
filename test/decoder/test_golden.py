"""The LLM with LoRA against numbers from the public reference code (``golden/llama_lora.pt``)."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.decoder.search import beam_search

GOLDEN = Path(__file__).parents[1] / "golden" / "llama_lora.pt"
ADAPTERS = {"down_Q": "q_proj.lora_A", "up_Q": "q_proj.lora_B"}
ADAPTERS |= {"down_V": "v_proj.lora_A", "up_V": "v_proj.lora_B"}


def peft_name(reference):
    """``model.layers.0.self_attn.lora_down_Q.weight`` → the name in the decoder."""
    layer, _, adapter = reference.removesuffix(".weight").rpartition(".lora_")
    return f"llm.{layer}.{ADAPTERS[adapter]}.default.weight"


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def golden(request, tmp_path_factory, local_tokenizer):
    golden = torch.load(GOLDEN, weights_only=True)
    base = {k: v for k, v in golden["state_dict"].items() if ".lora_" not in k}
    llm = LlamaForCausalLM(LlamaConfig(**golden["config"]))
    llm.load_state_dict(base)
    directory = tmp_path_factory.mktemp("golden")
    llm.save_pretrained(directory)
    local_tokenizer(with_bos=True).save_pretrained(directory)

    width = golden["bottleneck"]
    lora = {"r": width, "alpha": golden["scaling"] * width}
    decoder = LLMDecoder(str(directory), lora=lora, attn_implementation=request.param)
    adapters = {peft_name(k): v for k, v in golden["state_dict"].items() if ".lora_" in k}
    missing, unexpected = decoder.load_state_dict(adapters, strict=False)
    assert not unexpected and not any("lora_" in name for name in missing)
    return golden, decoder


def logits_of(decoder, embeddings):
    mask = torch.ones(embeddings.shape[:2], dtype=torch.long)  # the reference has none
    return decoder.logits(decoder.hidden_states(embeddings, mask))


def test_logits_loss_and_gradients(golden):
    golden, decoder = golden
    decoder.zero_grad()
    embeddings = golden["inputs_embeds"].clone().requires_grad_()
    logits = logits_of(decoder, embeddings)
    torch.testing.assert_close(logits, golden["logits"], atol=1e-4, rtol=0)
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), golden["labels"][:, 1:].flatten())
    torch.testing.assert_close(loss, golden["loss"], atol=1e-4, rtol=0)
    loss.backward()
    gradients = {"embeddings": embeddings.grad}
    expected = {"embeddings": golden["grad_inputs_embeds"]}
    for name, gradient in golden["grad_lora"].items():
        gradients[name] = decoder.get_parameter(peft_name(name)).grad
        expected[name] = gradient
    torch.testing.assert_close(gradients, expected, atol=1e-4, rtol=1e-3)


def test_adapters_make_the_difference(golden):
    golden, decoder = golden
    without = LLMDecoder(decoder.llm.config._name_or_path, lora=None)
    logits = logits_of(without, golden["inputs_embeds"])
    torch.testing.assert_close(logits, golden["logits_without_lora"], atol=1e-4, rtol=0)
    assert (golden["logits_without_lora"] - golden["logits"]).abs().max() > 0.1


@pytest.mark.parametrize("beam_size, name", [(1, "greedy"), (3, "beam3")])
def test_generation(golden, beam_size, name):
    golden, decoder = golden
    expected = golden[f"generate_{name}_ids"]
    prefix = golden["inputs_embeds"][: len(expected)]
    length, limit = torch.tensor([prefix.size(1)]), torch.tensor([expected.size(1)])
    ((best,),) = beam_search(decoder, prefix, length, limit, eos=2, beam_size=beam_size)
    assert best.ids == expected[0].tolist()
