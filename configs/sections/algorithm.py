"""Section `algorithm`: GRPO, and how old a trained token may be."""

from typing import Annotated, Literal

from pydantic import Field

from dynalign.configs.section import Positive, Section


class AlgorithmSettings(Section):
    """GRPO and the ledger's bounds."""

    advantage_scale: Literal["group", "batch", "none"] = "group"
    """Divide centred scores by the group's std, the batch's std, or nothing (Dr. GRPO)."""
    clip_low: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Lower clip range of the ratio: 1 - clip_low."""
    clip_high: Annotated[float, Field(gt=0.0, le=10.0)] = 0.28
    """Upper clip range of the ratio: 1 + clip_high."""
    kl_coef: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Weight of the KL to the initial policy (k2 as loss, reported as k3)."""
    loss_aggregation: Literal["token_mean", "sequence_mean", "fixed_length"] = "token_mean"
    """How per-token terms become the step's loss; always over all ranks' candidates together."""
    minibatches: Positive = 1
    """Optimizer steps per batch; 1 is on-policy within the step (ratio 1)."""
    max_staleness: Annotated[int, Field(ge=0, le=64)] = 1
    """Oldest version, in optimizer steps, that any trained token may carry; 0 is synchronous."""
    max_refill: Annotated[float, Field(ge=0.0, le=100.0)] = 4.0
    """Groups without signal replaced per step, as a multiple of prompts_per_step; beyond it `on_no_signal` decides."""
    on_no_signal: Literal["warn", "pause", "stop"] = "warn"
    """When a step finds no signal: train on what is there (scaled), pause the run, or stop it."""
