"""A gguf file as a bfloat16 Hugging Face folder. A process of its own (`python -P gguf_conversion.py FILE FOLDER`), run by model_fetch.py:
its libraries, their settings and their gigabyte of memory go with it."""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def convert(gguf: Path, out: Path) -> None:
    """Weights dequantized to bfloat16, tokenizer, chat template, and the end-of-turn token as the one that generation stops on."""
    place, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=name)
    # Without an explicit quantization config the weights stay packed.
    unpacked = GgufConfig(gguf_file=name, dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        place, gguf_file=name, quantization_config=unpacked, dtype=torch.bfloat16
    )
    tokenizer.model_max_length = model.config.max_position_embeddings
    for config in (model.config, model.generation_config):
        config.bos_token_id = tokenizer.bos_token_id
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
