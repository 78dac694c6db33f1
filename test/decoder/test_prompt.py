import pytest
from transformers import AutoTokenizer

from espnet_smop.decoder.prompt import prompt_for, prompt_ids

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}now{% endif %}"
)


def test_prompts_of_the_paper():
    assert prompt_for(["audio"]) == "Transcribe speech to text."
    assert prompt_for(["video"]) == "Transcribe video to text."
    assert prompt_for(["video", "audio"]) == "Transcribe speech and video to text."


@pytest.mark.parametrize("architecture, bos", [("llama3", ["<bos>"]), ("qwen3", [])])
def test_plain(make_llm, architecture, bos):
    tokenizer = AutoTokenizer.from_pretrained(make_llm(architecture))
    before, after = prompt_ids(tokenizer, "Transcribe video to text.")
    assert tokenizer.convert_ids_to_tokens(before) == bos
    assert tokenizer.decode(after) == "Transcribe video to text."
    assert prompt_ids(tokenizer, "") == (before, [])


def test_chat_template(make_llm):
    tokenizer = AutoTokenizer.from_pretrained(make_llm())
    with pytest.raises(ValueError, match="no chat template"):
        prompt_ids(tokenizer, "Transcribe", chat_template=True)
    tokenizer.chat_template = TEMPLATE
    before, after = prompt_ids(tokenizer, "Transcribe", chat_template=True)
    assert before[0] == tokenizer.bos_token_id and tokenizer.bos_token_id not in before[1:]
    assert tokenizer.decode(before).startswith("<bos>user")
    assert tokenizer.decode(after) == "Transcribe<eos>now"
