"""Section `rollout`: the workers that generate and score candidates."""

from typing import Annotated, Literal

from pydantic import Field

from dynalign.configs.section import NotNegative, Positive, Section


class WorkersSettings(Section):
    """How many rollout workers. `rollout.workers=3` is short for min = max = 3: a fixed number, which `dynalign scale` can change."""

    min: Annotated[int, Field(ge=1, le=900)] = 1
    """Workers at the start, and the fewest."""
    max: Annotated[int, Field(ge=1, le=900)] = 1
    """The most workers. The ledger answers about a thousand waiting calls at one time, so 900."""


class RolloutSettings(Section):
    """The workers that generate and score candidates."""

    engine: Literal["vllm", "deterministic"] = "vllm"
    """`vllm` is the engine; `deterministic` is a small engine for tests, chaos and scale runs: seeded text, no model."""
    workers: WorkersSettings = WorkersSettings()
    """Rollout workers, each with one engine: a number, or `{min, max}` to let the coordinator size the pool itself."""
    tensor_parallel: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs that one engine is split over."""
    group_size: Annotated[int, Field(ge=2, le=1024)] = 8
    """Candidates per prompt (G). One candidate has no group to be compared with, so 1 is refused."""
    prompts_per_step: Positive = 4
    """Groups trained per optimizer step (P)."""
    groups_in_flight: Positive = 2
    """Groups that one worker generates and scores at the same time."""
    max_completion_tokens: Annotated[int, Field(ge=1, le=131_072)] = 64
    """Longest completion, in tokens; longer ones are cut and count as truncated."""
    temperature: Annotated[float, Field(ge=1.0, le=1.0)] = 1.0
    """Sampling temperature. Only 1: truncated or tempered sampling biases the importance ratio."""
    top_p: Annotated[float, Field(ge=1.0, le=1.0)] = 1.0
    """Nucleus mass. Only 1, for the same reason."""
    top_k: Literal[-1] = -1
    """Top-k cut. Only -1 (off), for the same reason."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Precision of the engine's weights and of every weight version pushed to it."""
    kv_cache_gib: Annotated[float, Field(gt=0.0, le=1024.0)] = 1.0
    """Key-value cache per engine, in GiB."""
    block_size: Literal[16, 32, 64, 128] = 32
    """Tokens per key-value block; smaller blocks make the prefix cache finer."""
    max_sequences: Positive = 64
    """Sequences that the engine batches at once."""
    eager: bool = True
    """Run without compilation: on a CPU compiling costs about 90 s at each start and gains little at 32 sequences."""
    record_behaviour: bool = False
    """Also record the engine's log-probabilities in the learning context for every candidate, which corrects the engine-learner
    mismatch in the loss and costs one prefill per candidate."""
    gap_probes: NotNegative = 1
    """Candidates per group whose internalization gap is measured (two contexts, one version, one engine)."""
    engine_threads: Positive = 1
    """CPU threads per engine; each engine is pinned to that many cores where the machine has enough of them."""
