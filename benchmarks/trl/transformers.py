"""TRL with transformers' generation, on the work of `whole_step`: at the run's precision, then with its own
fastest settings.
"""

from typing import Any

from dynalign.benchmarks import whole_step
from dynalign.benchmarks.trl import step as trl_step
from dynalign.benchmarks.workload import Workload

BEST: dict[str, Any] = {"bf16": False, "model_init_kwargs": {"dtype": "bfloat16"}}
"""bfloat16 weights alone: nothing is cast at each call of a layer, at the price of small updates that are
rounded away."""
BEST_STEPS = 3
"""It is only timed: what it learns is not compared."""


def measure(workload: Workload) -> dict[str, list[float]]:
    """Raises RunFailed with TRL's last line."""
    run = whole_step.settings(workload)
    equal_s, rewards = trl_step.train(workload, run, "trl-equal", {})
    best_s, _ = trl_step.train(workload, run, "trl-best", BEST | {"max_steps": BEST_STEPS})
    return {
        "step_trl_transformers_s": equal_s[trl_step.WARM_UP_STEPS :],
        "step_trl_transformers_best_s": best_s[trl_step.WARM_UP_STEPS :],
        "reward_last_steps_trl": rewards[-whole_step.LAST_STEPS :],
    }
