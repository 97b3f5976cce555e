"""Section `rollout`: the workers that generate and score candidates.

Sampling has no settings: temperature 1, the whole vocabulary. Truncated or tempered sampling would bias the
importance ratio of the loss.
"""

from typing import Annotated, Literal

from pydantic import Field

from dynalign.configs.section import Fraction, NotNegative, Positive, Section

MOST_WORKERS = 900
"""The ledger's actor answers about a thousand waiting calls at a time, and each worker has one waiting."""


class WorkersSettings(Section):
    """How many rollout workers a run has.

    Example: `{min: 8, max: 32}`. `rollout.workers=3` is short for `{min: 3, max: 3}`, a fixed number, which
    `dynalign scale` can change.
    """

    min: Annotated[int, Field(ge=1, le=MOST_WORKERS)] = 1
    """Fewest workers, and their number at the start."""
    max: Annotated[int, Field(ge=1, le=MOST_WORKERS)] = 1
    """Most workers."""


class RolloutSettings(Section):
    """The workers, their engines, and how much they generate.

    Example: `{workers: {min: 8, max: 32}, prompts_per_step: 64, group_size: 8, max_completion_tokens: 1024}`.
    """

    engine: Literal["vllm", "deterministic"] = "vllm"
    """`vllm`: the inference engine; `deterministic`: a small engine without a model, which generates seeded
    text, for tests and for runs that measure scale or provoke failures."""
    workers: WorkersSettings = WorkersSettings()
    """Rollout workers, each with one engine: a number, or `{min, max}` to let the coordinator choose
    between them."""
    tensor_parallel: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs that one engine is split over."""
    group_size: Annotated[int, Field(ge=2, le=1024)] = 8
    """Candidates per prompt (G). At least 2, because a candidate is compared with the others of its group."""
    prompts_per_step: Positive = 4
    """Groups trained per optimizer step (P)."""
    groups_in_flight: Positive = 2
    """Groups that one worker generates and scores at the same time."""
    max_completion_tokens: Annotated[int, Field(ge=1, le=131_072)] = 64
    """Longest completion, in tokens; longer ones are cut and count as truncated."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Precision of the engine's weights and of every weight version sent to it."""
    kv_cache_gib: Annotated[float, Field(gt=0.0, le=1024.0)] = 1.0
    """Key-value cache per engine, in GiB."""
    block_size: Literal[16, 32, 64, 128] = 32
    """Tokens per key-value block; the prefix cache shares whole blocks, so smaller ones let it share more."""
    max_sequences: Positive = 64
    """Most sequences in one batch of the engine."""
    eager: bool = True
    """Run the model without compilation. On a CPU, compiling takes about 90 s at each start and gains
    little at 32 sequences."""
    record_behaviour: bool = False
    """Record the engine's log-probabilities of every candidate without the system prompt, as the learner
    sees it. The loss then corrects for the difference between engine and learner. Costs one prefill per
    candidate."""
    gap_probes: NotNegative = 1
    """Candidates per group whose internalization gap is measured: log-probabilities with and without the
    system prompt, by one weight version and one engine. Each costs one prefill of its context and
    completion, and a second one where a new version came while it was generated."""
    mismatch_fraction: Fraction = 0.0625
    """Share of the other candidates whose log-probabilities without the system prompt are recorded too, so
    that engine and learner can be compared (`logprob_mismatch_mean`) in every run. Each costs one prefill.
    Those of `gap_probes` are compared at no further cost."""
    engine_threads: Positive = 1
    """CPU threads per engine; each engine is pinned to as many cores where the machine has enough of them."""
