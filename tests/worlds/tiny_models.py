"""Tiny models and their settings, made on the spot: random weights, no download, milliseconds per step."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.algorithm import AlgorithmSettings
from dynalign.configs.sections.learner import LearnerSettings
from dynalign.configs.sections.rollout import RolloutSettings
from tests.worlds.tiny_groups import VOCABULARY


def tiny_llama(folder: Path, tied: bool = True, hidden: int = 32, vocabulary: int = VOCABULARY) -> Path:
    """A Llama of two layers with a word tokenizer and a chat template, saved in `folder`."""
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=8 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        initializer_range=0.2,  # far from uniform, so that log-probabilities tell sequences apart
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(VOCABULARY)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w2")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    return folder


def settings(
    model: Path, group_size: int = 4, minibatches: int = 1, kl_coef: float = 0.0, **learner: Any
) -> RunSettings:
    """A run of the tiny model in float32 on ZeRO 1, with what a test changes."""
    defaults = {"precision": "float32", "learning_rate": 1e-2, "token_budget": 64, "logprob_chunk_tokens": 16}
    return RunSettings(
        name="tiny",
        model=str(model),
        steps=10,
        rollout=RolloutSettings(group_size=group_size, max_completion_tokens=16, dtype="float32"),
        algorithm=AlgorithmSettings(minibatches=minibatches, kl_coef=kl_coef),
        learner=LearnerSettings(**(defaults | learner)),
    )
