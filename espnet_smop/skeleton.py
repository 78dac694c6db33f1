"""Published base models without their weights, to count and check models of their sizes.

A *skeleton* is a directory with a base model's ``config.json`` and, for an LLM, a byte tokenizer
in place of its own. Within ``with torch.device("meta")`` (`base_model.on_meta`) a model is built
from it as from the real directory, without network, weights or memory.

Source of the sizes: the ``config.json`` published under each hub id; for AV-HuBERT, the config in
the authors' checkpoint.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PretrainedConfig, PreTrainedTokenizerFast, WhisperConfig

from espnet_smop.base_model import BaseModelError
from espnet_smop.config import named_models
from espnet_smop.fileio.atomic import atomic_write
from espnet_smop.frontend.avhubert import AVHuBERTConfig

# Width, layers and heads, which are the same in Whisper's encoder and decoder.
_WHISPER = {
    "tiny": (384, 4, 6),
    "base": (512, 6, 8),
    "small": (768, 12, 12),
    "medium": (1024, 24, 16),
    "large-v2": (1280, 32, 20),
    "large-v3": (1280, 32, 20),
}

# Width, inner width, layers, heads, key/value heads, vocabulary size, tied embeddings.
_LLAMA = {
    "meta-llama/Llama-3.2-1B": (2048, 8192, 16, 32, 8, 128256, True),
    "meta-llama/Llama-3.2-3B": (3072, 8192, 28, 24, 8, 128256, True),
    "meta-llama/Llama-3.1-8B": (4096, 14336, 32, 32, 8, 128256, False),
    "meta-llama/Llama-2-7b-hf": (4096, 11008, 32, 32, 32, 32000, False),
    "meta-llama/Llama-2-13b-hf": (5120, 13824, 40, 40, 40, 32000, False),
    "TinyLlama/TinyLlama_v1.1": (2048, 5632, 22, 32, 4, 32000, False),
    "HuggingFaceTB/SmolLM2-135M": (576, 1536, 30, 9, 3, 49152, True),
}


def _whisper(name: str) -> WhisperConfig:
    width, layers, heads = _WHISPER[name.removesuffix(".en")]
    return WhisperConfig(
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        num_mel_bins=128 if name == "large-v3" else 80,
        vocab_size=51864 if name.endswith(".en") else 51866 if name == "large-v3" else 51865,
    )


def _llama(name: str) -> LlamaConfig:
    width, inner, layers, heads, key_heads, vocabulary, tied = _LLAMA[name]
    return LlamaConfig(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
        max_position_embeddings=131072 if "Llama-3" in name else 4096,
    )


def published_config(model: str) -> PretrainedConfig | AVHuBERTConfig:
    """Return the config of a published base model.

    Args:
        model: a hub id, or a path whose name begins with ``avhubert_large``.

    Raises:
        BaseModelError: the sizes of this model are not known here.
    """
    size = model.removeprefix("openai/whisper-")
    if size != model and size.removesuffix(".en") in _WHISPER:
        return _whisper(size)
    if model in _LLAMA:
        return _llama(model)
    if Path(model).name.startswith("avhubert_large"):
        return AVHuBERTConfig()
    raise BaseModelError(
        f"the sizes of base model '{model}' are not known here. Download it, or at least its "
        "config.json and tokenizer, to a directory and set `model: DIR`"
    )


def skeleton(model: str, directory: Path) -> Path:
    """Return a directory from which a base model can be built on the meta device.

    Args:
        model: a local directory, which is returned as is, or a published model.
        directory: parent directory of the skeletons of published models.

    Raises:
        BaseModelError: neither a directory nor a published model known here.
    """
    if Path(model).expanduser().is_dir():
        return Path(model).expanduser()
    config = published_config(model)
    out = directory / model.replace("/", "--")
    out.mkdir(parents=True, exist_ok=True)
    if isinstance(config, AVHuBERTConfig):
        with atomic_write(out / "config.json") as file:
            json.dump({"model_type": "avhubert", **dataclasses.asdict(config)}, file)
        return out
    if isinstance(config, LlamaConfig):
        _byte_tokenizer().save_pretrained(out)
    config.save_pretrained(out)
    return out


def use_skeletons(args: argparse.Namespace, directory: Path) -> dict[str, str]:
    """Replace the base models of a training config with skeletons.

    Args:
        args: of the task; ``model`` in its ``*_conf`` is replaced.
        directory: parent directory of the skeletons.

    Returns:
        Part (``audio_frontend``, ``video_frontend``, ``decoder``) → base model that was replaced.

    Raises:
        BaseModelError: the sizes of a base model are not known.
    """
    bases = named_models(vars(args))
    for part, model in bases.items():
        conf = {**getattr(args, f"{part}_conf"), "model": str(skeleton(model, directory))}
        setattr(args, f"{part}_conf", conf)
    return bases


def _byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = ["<bos>", "<eos>", *alphabet]
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(symbols)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>")
