import pytest
import torch
import yaml
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from espnet_smop.base_model import BaseModelError, frozen_keys
from espnet_smop.bin.merge_lora import main
from espnet_smop.checkpoint.merged_llm import write_merged
from espnet_smop.decoder.llm import LLMDecoder
from espnet_smop.view_steps import Views


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def settings(request, tmp_path):
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", *"abcdefgh "])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocabulary, [])), bos_token="<s>", eos_token="</s>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=request.param,
    )
    llm = LlamaForCausalLM(config)
    llm.generation_config.update(do_sample=True, temperature=0.7)
    llm.save_pretrained(tmp_path / "llm")
    tokenizer.save_pretrained(tmp_path / "llm")
    lora = {"r": 4, "alpha": 8, "target_modules": ["q_proj", "down_proj"]}
    return {"model": str(tmp_path / "llm"), "lora": lora, "prompt": "a"}


def trained_decoder(settings, dtype="float32"):
    decoder = LLMDecoder(**settings, dtype=dtype)
    for parameter in decoder.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    return decoder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_llm_computes_the_same(settings, tmp_path, dtype):
    decoder = trained_decoder(settings, dtype)
    before = {n: t.clone() for n, t in decoder.state_dict().items()}
    write_merged(decoder, tmp_path / "merged llm")
    after = decoder.state_dict()
    assert all(torch.equal(after[n], t) for n, t in before.items())

    merged, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged llm", output_loading_info=True, dtype="auto"
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert merged.dtype == getattr(torch, dtype)
    assert merged.generation_config.temperature == 0.7
    ids = torch.arange(11)[None]
    tolerance = {"float32": 1e-5, "bfloat16": 0.05}[dtype]
    expected = decoder.llm(input_ids=ids).logits
    torch.testing.assert_close(merged(input_ids=ids).logits, expected, atol=tolerance, rtol=0.02)
    base = AutoModelForCausalLM.from_pretrained(settings["model"])
    assert (base(input_ids=ids).logits - expected).abs().max() > 0.2
    assert AutoTokenizer.from_pretrained(tmp_path / "merged llm").eos_token == "</s>"


def test_command(settings, tmp_path):
    decoder = trained_decoder(settings)
    config, model_file = tmp_path / "config.yaml", tmp_path / "5epoch.pth"
    config.write_text(yaml.safe_dump({"decoder": "llm", "decoder_conf": settings}))
    trained = decoder.state_dict().keys() - frozen_keys(decoder)
    state = {f"decoder.{n}": decoder.state_dict()[n] for n in trained}
    torch.save(state | {"projector.weight": torch.ones(2)}, model_file)
    command = ["--config", str(config), "--model_file", str(model_file), "--out"]

    main([*command, str(tmp_path / "merged")])
    ids = torch.arange(11)[None]
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(
        merged(input_ids=ids).logits, decoder.llm(input_ids=ids).logits, atol=1e-5, rtol=1e-4
    )

    lost = next(n for n in state if "lora_B" in n)
    torch.save({n: t for n, t in state.items() if n != lost}, model_file)
    with pytest.raises(ValueError, match=lost.removeprefix("decoder.")):
        main([*command, str(tmp_path / "not written")])
    # Another LLM of the same shape under the same name
    prints = {f"decoder.{n}": value for n, value in decoder.fingerprints().items()}
    experiment = {"decoder": "llm", "decoder_conf": settings, "base_fingerprints": prints}
    config.write_text(yaml.safe_dump(experiment))
    torch.save(state, model_file)
    main([*command, str(tmp_path / "again")])
    LlamaForCausalLM(decoder.llm.config).save_pretrained(settings["model"])
    with pytest.raises(BaseModelError, match="not the LLM that .*config.yaml was trained with"):
        main([*command, str(tmp_path / "not written")])
    config.write_text(yaml.safe_dump({"decoder": "transformer", "decoder_conf": settings}))
    with pytest.raises(ValueError, match="transformer"):
        main([*command, str(tmp_path / "not written")])
    assert not (tmp_path / "not written").exists()


def test_mixtures_of_adapters_cannot_be_merged(settings, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"decoder": "llm", "decoder_conf": {**settings, "mome": {}}}))
    with pytest.raises(ValueError, match="decoder_conf.mome"):
        main(["--config", str(config), "--model_file", "none", "--out", str(tmp_path / "out")])


@pytest.mark.parametrize("shared", [False, True])
def test_the_llm_of_one_task_is_merged(settings, tmp_path, shared):
    settings["lora"] |= {"per": "task", "shared": shared}
    decoder = LLMDecoder(**settings, dtype="float32")
    views = Views({"asr": 1.0, "vsr": 1.0}).all
    decoder.prepare(views)
    for name, parameter in decoder.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    state = {f"decoder.{n}": decoder.state_dict()[n] for n in decoder.state_dict()}
    frozen = frozen_keys(decoder)
    state = {n: t for n, t in state.items() if n.removeprefix("decoder.") not in frozen}
    torch.save(state, tmp_path / "model.pth")
    config = {"decoder": "llm", "decoder_conf": settings, "base_fingerprints": {}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    words = ["--config", str(tmp_path / "config.yaml"), "--model_file", str(tmp_path / "model.pth")]
    ids = torch.tensor([[0, 3, 4, 5]])
    for view in views:
        out = tmp_path / view.task
        main([*words, "--output_dir", str(out), "--task", view.task])
        merged = AutoModelForCausalLM.from_pretrained(out, dtype="float32")
        with decoder.active(view):
            expected = decoder.llm(ids).logits
        torch.testing.assert_close(merged(ids).logits, expected, atol=1e-3, rtol=1e-4)
    with pytest.raises(ValueError, match="has LoRA per task or rates: give --task"):
        main([*words, "--output_dir", str(tmp_path / "x")])
    with pytest.raises(ValueError, match="LoRA for asr, vsr, but none for 'avsr'"):
        main([*words, "--output_dir", str(tmp_path / "x"), "--task", "avsr"])
