"""Chat tokenizers and tiny random chat models, made on the spot, for every part of the system.

Every byte is a token. The default template is ChatML with a default system text.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GptOssConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3MoeConfig,
)

TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

QWEN3 = (
    "{% for m in messages %}{% if m['role'] == 'assistant' and loop.last %}"
    "<|im_start|>assistant\n<think>\n{{ (m['reasoning_content'] or '').strip('\n') }}\n</think>\n\n"
    "{{ m['content'].lstrip('\n') }}<|im_end|>\n"
    "{% else %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""Like Qwen3's: in the last turn the model opens a thinking block, and closes it before the answer."""
R1 = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "<|im_start|>assistant\n{{ m['content'].split('</think>')[-1] }}<|im_end|>"
    "{% else %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
"""Like DeepSeek-R1's: the generation prompt opens the thinking block, and earlier turns leave it out."""
HARMONY = (
    "<|start|>system<|message|>You are a model.\nKnowledge cutoff: 2024-06\n"
    "Current date: {{ strftime_now('%Y-%m-%d') }}\n\nReasoning: medium\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
    "{% if messages[0]['role'] in ['developer', 'system'] %}"
    "<|start|>developer<|message|># Instructions\n\n{{ messages[0]['content'] }}\n\n<|end|>{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}<|start|>user<|message|>{{ m['content'] }}<|end|>"
    "{% elif m['role'] == 'assistant' %}<|start|>assistant<|channel|>final<|message|>{{ m['content'] }}"
    "{% if loop.last and not add_generation_prompt %}<|return|>{% else %}<|end|>{% endif %}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
"""Like gpt-oss's: every message of a turn names its channel."""
HARMONY_TOKENS = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>")


def chat_tokenizer(
    template: str | None = TEMPLATE, special: tuple[str, ...] = SPECIAL, eos: str = "<|im_end|>"
) -> PreTrainedTokenizerFast:
    """Byte-level: any text can be encoded, and every digit is one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: index for index, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=eos, additional_special_tokens=list(special)
    )
    fast.chat_template = template
    return fast


def harmony_tokenizer() -> PreTrainedTokenizerFast:
    return chat_tokenizer(HARMONY, HARMONY_TOKENS, eos="<|return|>")


def tiny_chat_model(
    folder: Path,
    tied: bool = True,
    config: type[PreTrainedConfig] = LlamaConfig,
    tokenizer: PreTrainedTokenizerFast | None = None,
    **more: Any,
) -> Path:
    """Saves a random model over the byte tokenizer in `folder`: 0.1 M parameters, 8,192 tokens of context.

    config: the architecture. more: settings of it that differ from the sizes here.
    """
    torch.manual_seed(11)
    tokenizer = tokenizer or chat_tokenizer()
    sizes: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": tied,
        "initializer_range": 0.1,
        "bos_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        "eos_token_id": tokenizer.eos_token_id,
    }
    model = AutoModelForCausalLM.from_config(config(**(sizes | more)))
    for name, parameter in model.named_parameters():
        if name.endswith((".sinks", "bias")):  # they begin as zeros, which would hide a change
            torch.nn.init.normal_(parameter, std=0.5)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def in_mxfp4(folder: Path) -> Path:
    """Rewrites a gpt-oss in `folder` with its experts in MXFP4, as they are released: 4-bit numbers with a
    shared power of two for every 32. The numbers are drawn anew, so that nothing is rounded."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name in [name for name in tensors if name.endswith((".gate_up_proj", ".down_proj"))]:
        experts, inputs, outputs = tensors.pop(name).shape
        tensors[f"{name}_blocks"] = torch.randint(
            0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8
        )
        tensors[f"{name}_scales"] = torch.randint(
            121, 124, (experts, outputs, inputs // 32), dtype=torch.uint8
        )
    save_file(tensors, file, metadata={"format": "pt"})
    plain = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    config = json.loads((folder / "config.json").read_text())
    quantization = {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": plain}}
    (folder / "config.json").write_text(json.dumps(config | quantization))
    return folder


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"config": LlamaConfig, "tied": True},
    "qwen3": {"config": Qwen3Config, "tied": False},
    "qwen3-moe": {
        "config": Qwen3MoeConfig,
        "tied": True,
        "moe_intermediate_size": 64,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    },
    "gpt-oss": {
        "config": GptOssConfig,
        "tied": False,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 48,
    },
}
"""Name → arguments of `tiny_chat_model`."""
