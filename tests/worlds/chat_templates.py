"""Chat templates after the conventions of the public families, and tokenizers for them."""

import re

from transformers import PreTrainedTokenizerFast

from tests.worlds.chat_models import HARMONY, QWEN3, R1, TEMPLATE, chat_tokenizer

_LLAMA = (
    "<|begin_of_text|>{% if not date_string is defined %}DEFAULT{% endif %}"
    "{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content']|trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string }}\n\n{{ s }}<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content']|trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
FAMILIES = {
    "chatml": TEMPLATE,
    "llama-3.1": _LLAMA.replace("DEFAULT", "{% set date_string = '26 Jul 2024' %}"),
    "llama-3.2": _LLAMA.replace("DEFAULT", "{% set date_string = strftime_now('%d %b %Y') %}"),
    "llama-3.3-agent": (
        "<|im_start|>system\nYou can use tools.{% if date_string is string %} Today is {{ date_string }}."
        "{% endif %}{% if messages[0]['role'] == 'system' %} {{ messages[0]['content'] }}{% endif %}"
        "<|im_end|>\n{% for m in messages %}{% if m['role'] != 'system' %}<|im_start|>{{ m['role'] }}\n"
        "{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "gemma": (
        "<bos>{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
        "{{ m['content']|trim }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
    "mistral": (
        "<s>{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] %}"
        "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}{% if m['role'] == 'user' %}"
        "[INST]{% if loop.last and s is defined %}{{ s }}\n\n{% endif %}{{ m['content'] }}[/INST]"
        "{% else %}{{ m['content'] }}</s>{% endif %}{% endfor %}"
    ),
    "mistral-small": (
        "<s>[SYSTEM_PROMPT]{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}"
        "{% set messages = messages[1:] %}{% else %}The current date is {{ strftime_now('%Y-%m-%d') }}."
        "{% endif %}[/SYSTEM_PROMPT]{% for m in messages %}{% if m['role'] == 'user' %}"
        "[INST]{{ m['content'] }}[/INST]{% else %}{{ m['content'] }}</s>{% endif %}{% endfor %}"
    ),
    "gpt-oss": HARMONY,
    "granite": (
        "<|start_of_role|>system<|end_of_role|>Today's Date: {{ strftime_now('%B %d, %Y') }}."
        "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% endif %}<|end_of_text|>\n"
        "{% for m in messages %}{% if m['role'] != 'system' %}<|start_of_role|>{{ m['role'] }}<|end_of_role|>"
        "{{ m['content'] }}<|end_of_text|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
    ),
    "qwen3": QWEN3,
    "r1": R1,
    "smollm3": (
        "{% if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}"
        "<|im_start|>system\nToday Date: {{ strftime_now('%d %B %Y') }}\n"
        "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}"
        "{% set messages = messages[1:] %}{% else %}Use <think> Thoughts </think> Solution.{% endif %}"
        "<|im_end|>\n{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "seed-oss": (
        "{% for m in messages %}<seed:bos>{{ m['role'] }}\n"
        "{% if m['role'] == 'assistant' and m['reasoning_content'] %}"
        "<seed:think>{{ m['reasoning_content'] }}</seed:think>{% endif %}{{ m['content'] }}<seed:eos>"
        "{% endfor %}{% if add_generation_prompt %}<seed:bos>assistant\n{% endif %}"
    ),
    "exaone": (
        "{% for m in messages %}[|{{ m['role'] }}|]{{ m['content'] }}[|endofturn|]\n{% endfor %}"
        "{% if add_generation_prompt %}[|assistant|]{% endif %}"
    ),
    "internlm2": (
        "{% for m in messages %}[UNUSED_TOKEN_146]{{ m['role'] }}\n{{ m['content'] }}[UNUSED_TOKEN_145]\n"
        "{% endfor %}{% if add_generation_prompt %}[UNUSED_TOKEN_146]assistant\n{% endif %}"
    ),
    "minimax": (
        "{% for m in messages %}]~b]{{ m['role'] }}\n{{ m['content'] }}[e~[\n{% endfor %}"
        "{% if add_generation_prompt %}]~b]ai\n<think>\n{% endif %}"
    ),
}
"""Family → a template like its own."""
_CONTROL = re.compile(r"<\|[^|<>\s]+\|>|</?[a-z_:]+>|\[/?[A-Z_\d]+\]|\]~b\]|\[e~\[|<(?:start|end)_of_turn>")
_ROLES = ("[|user|]", "[|assistant|]", "[|system|]", "[|endofturn|]")


def family_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """A byte tokenizer with all control tokens that the family's template writes."""
    template = FAMILIES[family]
    special = set(_CONTROL.findall(template)) | (set(_ROLES) if family == "exaone" else set())
    return chat_tokenizer(template, (*sorted(special), "</s>"), eos="</s>")
