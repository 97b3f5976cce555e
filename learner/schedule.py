"""The learning rate of every step as a pure function of its number: nothing to save, nothing to restore."""

import math
from typing import Literal

Schedule = Literal["constant", "linear", "cosine"]


def learning_rate(step: int, steps: int, base: float, warmup_steps: int, kind: Schedule) -> float:
    """The learning rate of step `step`, which counts from 1 to `steps`.

    Rises linearly to `base` at step `warmup_steps`; then stays (``constant``), or falls along a line or half a cosine that
    would reach 0 at step `steps` + 1: the first step after the warm-up has `base`, and no step has 0.

    :raises ValueError: `step` is not in 1 … `steps`.
    """
    if not 1 <= step <= steps:
        raise ValueError(f"step {step} is not one of 1 to {steps}")
    if step <= warmup_steps:
        return base * step / warmup_steps
    progress = (step - 1 - warmup_steps) / (steps - warmup_steps)
    if kind == "linear":
        return base * (1 - progress)
    if kind == "cosine":
        return base * (1 + math.cos(math.pi * progress)) / 2
    return base
