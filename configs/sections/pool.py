"""Section `judge.pool`: engines of this run whose weights stay as they are."""

from typing import Annotated, Literal

from pydantic import Field

from dynalign.configs.section import Positive, Seconds, Section

MOST_ENGINES = 900
"""As many as rollout workers."""


class PoolSettings(Section):
    """Engines with fixed weights, which answer questions: the initial policy, or another model.

    Example: `{model: runs/judge/hf, engines: 4, tensor_parallel: 2, kv_cache_gib: 16.0}`.
    """

    model: str | None = None
    """Model of the engines, named as `model` is, which judges ask as `pool`; null: the initial policy, which
    they ask as `frozen`."""
    engine: Literal["vllm", "deterministic"] = "vllm"
    """`vllm`: the inference engine; `deterministic`: a small engine without a model, for tests."""
    engines: Annotated[int, Field(ge=1, le=MOST_ENGINES)] = 1
    """Engines, each with the whole model. A question goes to the one that has least to do."""
    tensor_parallel: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs that one engine is split over; it has them for itself."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Precision of the weights."""
    kv_cache_gib: Annotated[float, Field(gt=0.0, le=1024.0)] = 1.0
    """Key-value cache per engine, in GiB."""
    block_size: Literal[16, 32, 64, 128] = 32
    """Tokens per key-value block; the prefix cache shares whole blocks, so smaller ones let it share more."""
    max_sequences: Positive = 64
    """Most questions that one engine works on at the same time; others wait for their turn."""
    eager: bool = True
    """Run the model without compilation."""
    context_tokens: Positive | None = None
    """Longest question with its answer, in tokens; null: the longest context of the rollout's engines."""
    engine_threads: Positive = 1
    """CPU threads per engine; each engine is pinned to as many cores where the machine has enough of them."""
    answer_s: Seconds = 300.0
    """One question in an engine, in seconds; after it the engine counts as hanging, and is replaced."""
