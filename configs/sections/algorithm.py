"""Section `algorithm`: GRPO, and how old a trained token may be."""

from typing import Annotated, Literal

from pydantic import Field

from dynalign.configs.section import Positive, Section


class AlgorithmSettings(Section):
    """Advantages, loss, and what a step may be trained on.

    Example: `{advantage_scale: group, clip_low: 0.2, clip_high: 0.28, kl_coef: 0.0, max_staleness: 1}`.
    """

    advantage_scale: Literal["group", "batch", "none"] = "group"
    """Divide the centred scores by the standard deviation of their group (GRPO, arXiv 2402.03300), by that
    of the whole batch, or by nothing (Dr. GRPO, arXiv 2503.20783)."""
    clip_low: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """The importance ratio is clipped from below at 1 - clip_low."""
    clip_high: Annotated[float, Field(gt=0.0, le=10.0)] = 0.28
    """The importance ratio is clipped from above at 1 + clip_high."""
    kl_coef: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Weight of the KL divergence to the initial policy: the k2 estimator in the loss, k3 in the metrics."""
    system_prompt: Literal["left_out", "kept"] = "left_out"
    """Whether the learner's context has s, the system prompt that carries the value. `left_out`: a plain
    user's context, so that the value moves from the prompt into the weights (the method). `kept`: the context
    that sampled, which is ordinary GRPO."""
    context_taper: bool = False
    """Multiply the terms of tokens with negative advantage by min(1, π(y|x) / π(y|s,x)), without gradient:
    what the plain policy hardly says is hardly pushed down. The denominator is the engine's when it sampled,
    the numerator the learner's at the start of the step. Never part of the ratio."""
    distill_coef: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Weight of context distillation (arXiv 2209.15189): of KL(π(·|s,x) to π(·|x)) along the sampled tokens,
    whatever their advantage."""
    loss_aggregation: Literal["token_mean", "sequence_mean", "fixed_length"] = "token_mean"
    """How the terms of single tokens become the loss of a step, always over the candidates of all ranks
    together."""
    minibatches: Positive = 1
    """Optimizer updates per batch; with 1 every update is on-policy within its step (ratio 1)."""
    max_staleness: Annotated[int, Field(ge=0, le=64)] = 1
    """Largest age of a trained token, in weight versions (one per optimizer step); 0: synchronous."""
    max_refill: Annotated[float, Field(ge=0.0, le=100.0)] = 4.0
    """Most groups without signal (equal scores) that are replaced per step, as a multiple of
    prompts_per_step. Beyond it `on_no_signal` decides."""
    on_no_signal: Literal["warn", "pause", "stop"] = "warn"
    """What a step does that finds too few groups with signal: train on those there are, scaled (`warn`),
    pause the run, or stop it."""
