"""The learning rate of each step as a pure function of the step's number, so there is no state to save or
restore.
"""

import math
from typing import Literal

Schedule = Literal["constant", "linear", "cosine"]


def learning_rate(step: int, steps: int, base: float, warmup_steps: int, kind: Schedule) -> float:
    """Return the learning rate of step `step`, counted from 1 to `steps`.

    The rate rises linearly and reaches `base` at step `warmup_steps`. Then it stays there (``constant``), or
    falls along a line or half a cosine that would reach 0 at step `steps` + 1: the first step after the
    warm-up has `base`, and no step has 0.

    Raises ValueError if `step` is not in 1 … `steps`.
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
