"""The prompt around the audio and video tokens in the LLM's input."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from espnet_smop.views import task_for

PROMPTS = {
    ("audio",): "Transcribe speech to text.",
    ("video",): "Transcribe video to text.",
    ("audio", "video"): "Transcribe speech and video to text.",
}
"""Modalities → the prompt of the Llama-AVSR and Llama-SMoP papers."""

_MEDIA = "\N{OBJECT REPLACEMENT CHARACTER}"


def prompt_for(modalities: Iterable[str]) -> str:
    """Return the paper's prompt for ``{"audio"}``, ``{"video"}`` or both."""
    return PROMPTS[tuple(sorted(modalities))]


def choose_prompt(prompt: str | Mapping[str, str] | None, modalities: Collection[str]) -> str:
    """Return the prompt for the modalities that the LLM reads.

    Args:
        prompt: one for all, task → prompt, or None; the paper's replaces a missing one.
        modalities: ``audio``, ``video`` or both.
    """
    if isinstance(prompt, str):
        return prompt
    return (prompt or {}).get(task_for(modalities)) or prompt_for(modalities)


def prompt_ids(
    tokenizer: Any, prompt: str, *, chat_template: bool = False
) -> tuple[list[int], list[int]]:
    """Tokenise the parts before the media tokens and between them and the text.

    Args:
        tokenizer: a Hugging Face tokenizer, with or without BOS (Qwen has none).
        prompt: the instruction; may be empty.
        chat_template: put media and prompt into a user turn of the tokenizer's chat template, so
            that the text becomes the assistant's answer. For instruct models.

    Returns:
        Ids before the media tokens (BOS, or the template's opening) and ids after them.

    Raises:
        ValueError: ``chat_template`` is set, but the tokenizer has none.
    """
    if not chat_template:
        before = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        return before, _ids(tokenizer, prompt)
    if not tokenizer.chat_template:
        raise ValueError(
            "chat_template: true, but the base model's tokenizer has no chat template. "
            "Set it to false, or use an instruct model"
        )
    turn = tokenizer.apply_chat_template(
        [{"role": "user", "content": _MEDIA + prompt}], tokenize=False, add_generation_prompt=True
    )
    before, _, after = turn.partition(_MEDIA)
    return _ids(tokenizer, before), _ids(tokenizer, after)


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids if text else []
