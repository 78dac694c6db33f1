"""The LLM's tokenizer, without the LLM."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from espnet_smop.base_model import locate

_FILES = ("*.json", "*.model", "*.txt", "*.jinja")


def load_tokenizer(model: str, gguf_file: str | None = None) -> Any:
    """Load the Hugging Face tokenizer of an LLM.

    Args:
        model: a local directory, a hub id, or a ``.gguf`` file.
        gguf_file: name of a GGUF file inside ``model`` that holds the tokenizer.
    """
    path = Path(model).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    patterns = (*_FILES, gguf_file) if gguf_file else _FILES
    return AutoTokenizer.from_pretrained(locate(model, patterns=patterns), gguf_file=gguf_file)


class TextEncoder:
    """Turns transcripts into token ids; for data loading, where no LLM is at hand.

    Args:
        model: as in :func:`load_tokenizer`.
        gguf_file: as in :func:`load_tokenizer`.
    """

    def __init__(self, model: str, gguf_file: str | None = None):
        self.tokenizer = load_tokenizer(model, gguf_file)

    def __call__(self, text: str) -> list[int]:
        """Return the ids of ``text``, without BOS and EOS."""
        return self.tokenizer(text, add_special_tokens=False).input_ids
