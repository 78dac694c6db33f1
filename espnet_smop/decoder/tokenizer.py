"""Locates an LLM and loads its tokenizer without the weights."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from espnet_smop.base_model import locate

_PORTION = 1000
_FILES = ("*.json", "*.model", "*.txt", "*.jinja")


def locate_llm(model: str, gguf_file: str | None, *, weights: bool) -> tuple[Path, str | None]:
    """Return the directory of an LLM, and the name of its GGUF file if it has one.

    Args:
        model: a local directory, a hub id, or a ``.gguf`` file.
        gguf_file: name of a GGUF file inside ``model``.
        weights: whether to fetch the weights as well.
    """
    path = Path(model).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return path.parent, path.name
    if gguf_file is not None:
        return locate(model, patterns=("*.json", gguf_file)), gguf_file
    return locate(model, patterns=(*_FILES, "*.safetensors") if weights else _FILES), None


def load_tokenizer(model: str, gguf_file: str | None = None) -> Any:
    """Load the Hugging Face tokenizer of an LLM; arguments as in `locate_llm`."""
    directory, gguf_file = locate_llm(model, gguf_file, weights=False)
    return AutoTokenizer.from_pretrained(directory, gguf_file=gguf_file)


class TextEncoder:
    """Turns transcripts into token ids without loading the LLM, for data loading.

    Args:
        model: as in `locate_llm`.
        gguf_file: as in `locate_llm`.
        tokenizer: directory or hub id of a tokenizer to use instead of that of ``model``.
    """

    def __init__(self, model: str, gguf_file: str | None = None, tokenizer: str | None = None):
        if tokenizer is not None:
            model, gguf_file = tokenizer, None
        self.tokenizer = load_tokenizer(model, gguf_file)

    def __call__(self, text: str) -> list[int]:
        """Return the ids of ``text``, without BOS and EOS."""
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of ids of each text; several times faster than one by one."""
        # The tokenizer's threads do not survive the fork of the data loader's processes.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        portions = (texts[i : i + _PORTION] for i in range(0, len(texts), _PORTION))
        return [
            len(ids)
            for portion in portions
            for ids in self.tokenizer(portion, add_special_tokens=False).input_ids
        ]
