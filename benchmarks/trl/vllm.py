"""TRL with vLLM's generation in its own process, on the work of `whole_step`.

TRL writes the new weights over the engine's parameters one by one. On a CPU vLLM packs the weights of linear
layers for the kernels at its start and drops the parameters (0.31, the newest that TRL names, as well as the
one installed here), so the first push fails.
"""

from dynalign.benchmarks import whole_step
from dynalign.benchmarks.trl import step as trl_step
from dynalign.benchmarks.workload import Workload
from dynalign.configs.errors import NotMeasurable, RunFailed


def measure(workload: Workload) -> dict[str, list[float]]:
    """Raises NotMeasurable with TRL's last line where this mode does not run."""
    run = whole_step.settings(workload)
    longest = run.prompts.max_tokens + run.rollout.max_completion_tokens
    try:
        steps_s, _ = trl_step.train(
            workload, run, "trl-vllm", {"use_vllm": True, "vllm_max_model_length": longest}
        )
    except RunFailed as error:
        raise NotMeasurable(f"TRL's vLLM mode does not run here: {error}") from error
    return {"step_trl_vllm_s": steps_s[trl_step.WARM_UP_STEPS :]}
