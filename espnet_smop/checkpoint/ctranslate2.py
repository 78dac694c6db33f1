"""Conversion of Whisper models from CTranslate2's format to Hugging Face's."""

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from espnet_smop.base_model import BaseModelError

_VERSION = 6
_DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)
_ENGLISH_ONLY_VOCABULARY = 51864
_NORMS = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "ffn/layer_norm": "final_layer_norm",
}
_LINEARS = {
    "self_attention/linear_0": [f"self_attn.{p}_proj" for p in "qkv"],
    "self_attention/linear_1": ["self_attn.out_proj"],
    "attention/linear_0": ["encoder_attn.q_proj"],
    "attention/linear_1": ["encoder_attn.k_proj", "encoder_attn.v_proj"],
    "attention/linear_2": ["encoder_attn.out_proj"],
    "ffn/linear_0": ["fc1"],
    "ffn/linear_1": ["fc2"],
}


def read_model(path: str | Path) -> dict[str, np.ndarray]:
    """Read the variables of a Whisper model from CTranslate2's ``model.bin``.

    Raises:
        BaseModelError: another format, version or model, or an incomplete file.
    """
    try:
        with open(path, "rb") as file:
            (version,) = struct.unpack("<I", _exactly(file, 4))
            if version != _VERSION:
                raise BaseModelError(
                    f"{path}: CTranslate2 format {version}, only {_VERSION} is supported"
                )
            kind = _string(file)
            if kind != "WhisperSpec":
                raise BaseModelError(f"{path} holds {kind!r}, not a WhisperSpec")
            _revision, count = struct.unpack("<II", _exactly(file, 8))
            variables = {}
            for _ in range(count):
                name = _string(file)
                (rank,) = struct.unpack("<B", _exactly(file, 1))
                shape = struct.unpack(f"<{rank}I", _exactly(file, 4 * rank))
                dtype, size = struct.unpack("<BI", _exactly(file, 5))
                variables[name] = np.frombuffer(_exactly(file, size), _DTYPES[dtype]).reshape(shape)
            return variables
    except (OSError, EOFError, IndexError, ValueError, struct.error) as e:
        cause = next(iter(str(e).splitlines()), type(e).__name__)
        raise BaseModelError(f"{path} cannot be read as a CTranslate2 model: {cause}") from e


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise EOFError("the file is incomplete")
    return data


def _string(file: BinaryIO) -> str:
    (size,) = struct.unpack("<H", _exactly(file, 2))
    return _exactly(file, size).rstrip(b"\0").decode()


def to_hugging_face(variables: dict[str, np.ndarray]) -> WhisperForConditionalGeneration:
    """Build the Hugging Face model from the variables of a CTranslate2 model.

    Raises:
        BaseModelError: the weights are quantised, missing or unknown.
    """
    if any(name.endswith("/weight_scale") for name in variables):
        raise BaseModelError("the CTranslate2 model is quantised: use one in float16 or float32")
    state = {}
    for name, value in variables.items():
        if value.dtype in (np.float16, np.float32):
            state.update(_rename(name, torch.from_numpy(value.astype(np.float32))))
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    model = WhisperForConditionalGeneration(_config(variables))
    wanted = model.state_dict().keys()
    if wanted != state.keys():
        raise BaseModelError(
            f"the CTranslate2 model lacks {sorted(wanted - state.keys())} and has the unexpected "
            f"{sorted(state.keys() - wanted)}"
        )
    model.load_state_dict(state)
    return model.eval()


def _rename(name: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
    side, _, rest = name.partition("/")
    prefix = f"model.{side}."
    if rest == "position_encodings/encodings":
        return {f"{prefix}embed_positions.weight": value}
    if rest == "embeddings/weight":
        return {f"{prefix}embed_tokens.weight": value}
    if rest.startswith("layer_") and not rest.startswith("layer_norm/"):
        layer, _, rest = rest.partition("/")
        prefix += f"layers.{layer.removeprefix('layer_')}."
    module, _, kind = rest.rpartition("/")
    if module.endswith("layer_norm"):
        target = _NORMS.get(module, "layer_norm")
        return {f"{prefix}{target}.{'weight' if kind == 'gamma' else 'bias'}": value}
    targets = _LINEARS.get(module, [module.replace("/", ".")])
    parts = value.chunk(len(targets))
    # Hugging Face's k_proj has no bias; CTranslate2's is zero.
    return {
        f"{prefix}{target}.{kind}": part
        for target, part in zip(targets, parts, strict=True)
        if not (target.endswith("k_proj") and kind == "bias")
    }


def _config(variables: dict[str, np.ndarray]) -> WhisperConfig:
    def layers(side: str) -> int:
        return len(
            {n.split("/")[1] for n in variables if n.startswith(f"{side}/layer_") and "/ffn/" in n}
        )

    vocabulary, width = variables["decoder/embeddings/weight"].shape
    # The multilingual vocabulary has one more text token before the special ones.
    end_of_text = 50256 if vocabulary == _ENGLISH_ONLY_VOCABULARY else 50257
    end_of_text = min(end_of_text, vocabulary - 2)
    return WhisperConfig(
        vocab_size=vocabulary,
        d_model=width,
        num_mel_bins=variables["encoder/conv1/weight"].shape[1],
        max_source_positions=len(variables["encoder/position_encodings/encodings"]),
        max_target_positions=len(variables["decoder/position_encodings/encodings"]),
        encoder_layers=layers("encoder"),
        decoder_layers=layers("decoder"),
        encoder_attention_heads=int(variables["encoder/num_heads"]),
        decoder_attention_heads=int(variables["decoder/num_heads"]),
        encoder_ffn_dim=len(variables["encoder/layer_0/ffn/linear_0/bias"]),
        decoder_ffn_dim=len(variables["decoder/layer_0/ffn/linear_0/bias"]),
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
        pad_token_id=end_of_text,
        decoder_start_token_id=end_of_text + 1,
    )
