import struct

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from espnet_smop.base_model import BaseModelError
from espnet_smop.checkpoint.ctranslate2 import read_model, to_hugging_face


def string(text):
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def write_model(path, model, *, version=6, kind="WhisperSpec", dtype=np.float32):
    """Write a Hugging Face Whisper as CTranslate2 does."""
    state = {k.removeprefix("model."): v.numpy() for k, v in model.state_dict().items()}
    state.pop("proj_out.weight")
    variables = {}
    for side in ("encoder", "decoder"):
        variables[f"{side}/num_heads"] = np.int16(model.config.encoder_attention_heads)
        variables[f"{side}/position_encodings/encodings"] = state.pop(
            f"{side}.embed_positions.weight"
        )
        for i in range(model.config.encoder_layers):
            for theirs, ours, linears in (
                ("self_attention", "self_attn", ["qkv", "out"]),
                ("attention", "encoder_attn", ["q", "kv", "out"]),
            ):
                old = f"{side}.layers.{i}.{ours}"
                if f"{old}.q_proj.weight" not in state:
                    continue
                state[f"{old}.k_proj.bias"] = np.zeros(model.config.d_model, np.float32)
                for j, group in enumerate(linears):
                    names = [group] if group == "out" else list(group)
                    for kind_ in ("weight", "bias"):
                        variables[f"{side}/layer_{i}/{theirs}/linear_{j}/{kind_}"] = np.concatenate(
                            [state.pop(f"{old}.{n}_proj.{kind_}") for n in names]
                        )
                for their_kind, kind_ in (("gamma", "weight"), ("beta", "bias")):
                    variables[f"{side}/layer_{i}/{theirs}/layer_norm/{their_kind}"] = state.pop(
                        f"{old}_layer_norm.{kind_}"
                    )
            old = f"{side}.layers.{i}"
            for their_kind, kind_ in (("gamma", "weight"), ("beta", "bias")):
                variables[f"{side}/layer_{i}/ffn/layer_norm/{their_kind}"] = state.pop(
                    f"{old}.final_layer_norm.{kind_}"
                )
            for j in (0, 1):
                for kind_ in ("weight", "bias"):
                    variables[f"{side}/layer_{i}/ffn/linear_{j}/{kind_}"] = state.pop(
                        f"{old}.fc{j + 1}.{kind_}"
                    )
        for their_kind, kind_ in (("gamma", "weight"), ("beta", "bias")):
            variables[f"{side}/layer_norm/{their_kind}"] = state.pop(f"{side}.layer_norm.{kind_}")
    variables["decoder/embeddings/weight"] = state.pop("decoder.embed_tokens.weight")
    for name, value in state.items():  # the convolutions
        variables[name.replace(".", "/")] = value
    types = [np.float32, np.int8, np.int16, np.int32, np.float16]
    with open(path, "wb") as file:
        file.write(struct.pack("<I", version) + string(kind))
        file.write(struct.pack("<II", 3, len(variables)))
        for name, value in variables.items():
            if value.dtype == np.float32:
                value = value.astype(dtype)
            file.write(string(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape))
            file.write(struct.pack("<BI", types.index(value.dtype), value.nbytes))
            file.write(value.tobytes())
        file.write(struct.pack("<I", 0))


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return WhisperForConditionalGeneration(
        WhisperConfig(
            d_model=16,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            vocab_size=40,
            max_source_positions=20,
            max_target_positions=12,
            pad_token_id=38,
            bos_token_id=38,
            eos_token_id=38,
            decoder_start_token_id=39,
        )
    ).eval()


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 0), (np.float16, 1e-3)])
def test_gives_the_model_back(tiny, tmp_path, dtype, tolerance):
    write_model(tmp_path / "model.bin", tiny, dtype=dtype)
    model = to_hugging_face(read_model(tmp_path / "model.bin"))
    found = model.state_dict()
    for name, value in tiny.state_dict().items():
        torch.testing.assert_close(found[name], value, atol=tolerance, rtol=0)
    mel, ids = torch.randn(1, 80, 40), torch.tensor([[39, 3, 4]])
    with torch.no_grad():
        logits = [m(input_features=mel, decoder_input_ids=ids).logits for m in (model, tiny)]
    torch.testing.assert_close(*logits, atol=1e-2, rtol=0)


def test_other_files_are_refused(tiny, tmp_path):
    path = tmp_path / "model.bin"
    write_model(path, tiny, version=5)
    with pytest.raises(BaseModelError, match="format 5"):
        read_model(path)
    write_model(path, tiny, kind="TransformerSpec")
    with pytest.raises(BaseModelError, match="TransformerSpec"):
        read_model(path)
    write_model(path, tiny)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(BaseModelError, match="file is incomplete"):
        read_model(path)
    with pytest.raises(BaseModelError, match="cannot be read"):
        read_model(tmp_path / "absent")


def test_quantised_and_incomplete_models_are_refused(tiny, tmp_path):
    write_model(tmp_path / "model.bin", tiny)
    variables = read_model(tmp_path / "model.bin")
    with pytest.raises(BaseModelError, match="quantised"):
        to_hugging_face(variables | {"encoder/conv1/weight_scale": np.ones(16, np.float32)})
    del variables["encoder/layer_1/ffn/linear_1/weight"]
    with pytest.raises(BaseModelError, match=r"lacks .*encoder\.layers\.1\.fc2\.weight"):
        to_hugging_face(variables)
