"""TRL with transformers' generation, on the work of `whole_step`."""

from typing import Any

from benchmarks import trl_step, whole_step
from benchmarks.workload import Workload

BEST: dict[str, Any] = {}
"""What was found fastest for TRL on this work and two cores."""


def measure(workload: Workload) -> dict[str, list[float]]:
    """Raises RunFailed with TRL's last line."""
    equal_s, rewards = trl_step.train(workload, whole_step.settings(workload, best=False), "trl-equal", {})
    best_s, _ = trl_step.train(workload, whole_step.settings(workload, best=True), "trl-best", BEST)
    return {
        "step_trl_transformers_s": equal_s[trl_step.WARM_UP_STEPS :],
        "step_trl_transformers_best_s": best_s[trl_step.WARM_UP_STEPS :],
        "reward_last_steps_trl": rewards[-whole_step.LAST_STEPS :],
    }
