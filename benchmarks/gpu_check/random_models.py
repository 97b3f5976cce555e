"""Models with random weights in the shapes of Qwen3, with a tokenizer of their own: nothing is fetched."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

import dynalign
from dynalign.benchmarks.gpu_check.site import Site
from dynalign.run_folder import durable

Size = Literal["0.6B", "1.7B"]

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_QWEN3: dict[str, int] = {
    "vocab_size": 151_936,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
}
SHAPES: dict[Size, dict[str, int]] = {
    "0.6B": _QWEN3 | {"hidden_size": 1024, "intermediate_size": 3072},
    "1.7B": _QWEN3 | {"hidden_size": 2048, "intermediate_size": 6144},
}
"""Of the released Qwen3-0.6B and Qwen3-1.7B, whose embeddings are tied."""
TINY: dict[str, int] = {
    "vocab_size": 2048,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 8192,
    "hidden_size": 64,
    "intermediate_size": 128,
}
"""Of both in a dry run."""
_LOGIT_STD = 0.64
"""Of the first weights' logits: the width's root times the embeddings' 0.02 in the 0.6B shape. A narrower
model gets larger weights, so that its log-probabilities tell weights apart as well."""
_LEARNED = 16_000
"""Tokens of the vocabulary that are learned from texts."""


def random_model(site: Site, size: Size) -> Path:
    """The folder of the model, written by the first stage that asks for it."""
    folder = site.common / size
    if folder.is_dir():
        return folder
    aside = folder.with_name(f".{size}")
    shutil.rmtree(aside, ignore_errors=True)
    write_model(aside, TINY if site.device == "cpu" else SHAPES[size], site.device == "gpu")
    durable.publish(aside, folder)
    return folder


def write_model(folder: Path, shape: dict[str, int], on_gpu: bool) -> None:
    """Saves a bfloat16 model and its tokenizer. on_gpu: draw the weights there, which is faster."""
    tokenizer = made_tokenizer(shape["vocab_size"])
    settings: dict[str, Any] = shape | {
        "tie_word_embeddings": True,
        "initializer_range": _LOGIT_STD / shape["hidden_size"] ** 0.5,
        "bos_token_id": tokenizer.convert_tokens_to_ids(SPECIAL[0]),
        "eos_token_id": tokenizer.convert_tokens_to_ids(SPECIAL[2]),
    }
    models_of: Any = AutoModelForCausalLM
    torch.manual_seed(1)
    with torch.device("cuda" if on_gpu else "cpu"):
        model = models_of.from_config(Qwen3Config(**settings), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    del model
    free_gpu()


def free_gpu() -> None:
    """Gives back what torch keeps of the GPU for later, where this process uses one: a run that it starts is
    measured beside it."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def made_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, learned from the prompts and texts of the rollout, each digit a token.

    Where these give fewer tokens than the vocabulary has, joins of two fill it up: so every token that a
    random model samples has a text, which becomes about as many tokens again."""
    tokenizer = Tokenizer(models.BPE())
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), bytewise]
    )
    tokenizer.decoder = decoders.ByteLevel()
    plain = vocabulary - len(SPECIAL)
    trainer = trainers.BpeTrainer(
        vocab_size=min(plain, _LEARNED), initial_alphabet=bytewise.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    tokenizer.model = models.BPE(*_filled(learned["vocab"], learned["merges"], plain))
    tokenizer_of: Any = PreTrainedTokenizerFast
    fast: PreTrainedTokenizerFast = tokenizer_of(
        tokenizer_object=tokenizer,
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[0],
        additional_special_tokens=list(SPECIAL),
    )
    fast.chat_template = TEMPLATE
    return fast


def _texts() -> list[str]:
    (root,) = dynalign.__path__
    rollout = Path(root) / "rollout"
    files = [*sorted((rollout / "values").iterdir()), *sorted((rollout / "data").glob("*.jsonl"))]
    return [line for file in files if file.is_file() for line in file.read_text().splitlines()]


def _filled(
    vocabulary: dict[str, int], merges: list[list[str]], size: int
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges with joins of two tokens until there are `size`. Digits stay alone."""
    filled = dict(vocabulary)
    joins = [(left, right) for left, right in merges]
    parts = [token for token in vocabulary if token.isascii() and token.isalpha()]
    for left in parts:
        for right in parts:
            if len(filled) >= size:
                return filled, joins
            if left + right not in filled:
                filled[left + right] = len(filled)
                joins.append((left, right))
    return filled, joins
