"""TRL with vLLM's generation in its own process, on the work of `whole_step`."""

from benchmarks import trl_step, whole_step
from benchmarks.workload import Workload
from configs.errors import NotMeasurable, RunFailed


def measure(workload: Workload) -> dict[str, list[float]]:
    """Raises NotMeasurable with TRL's last line where this mode does not run."""
    run = whole_step.settings(workload, best=True)
    longest = run.prompts.max_tokens + run.rollout.max_completion_tokens
    try:
        steps_s, _ = trl_step.train(workload, run, "trl-vllm", {"use_vllm": True, "vllm_max_model_length": longest})
    except RunFailed as error:
        raise NotMeasurable(f"TRL's vLLM mode does not run here: {error}") from error
    return {"step_trl_vllm_s": steps_s[trl_step.WARM_UP_STEPS :]}
