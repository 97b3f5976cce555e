"""Converts a gguf file to a bfloat16 Hugging Face folder.

fetch.py runs it as a process (`python -P gguf_conversion.py FILE FOLDER`), so that the libraries, their
settings and their gigabyte of memory go when it ends.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def convert(gguf: Path, out: Path) -> None:
    """Writes dequantized weights, tokenizer and chat template; generation stops on the end-of-turn token."""
    folder = str(gguf.parent)
    name = gguf.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    # Without an explicit quantization config the weights stay packed.
    unpacked = GgufConfig(gguf_file=name, dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, quantization_config=unpacked, dtype=torch.bfloat16
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
