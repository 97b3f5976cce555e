"""A step of TRL with the settings of a dynalign run: the same prompts, candidates, reward, optimizer and
clips.
"""

import json
import os
from pathlib import Path
from typing import Any

from dynalign.benchmarks.process import ENVIRONMENT, run_python
from dynalign.benchmarks.trl.environment import trl_python
from dynalign.benchmarks.workload import Workload
from dynalign.configs.schema import RunSettings
from dynalign.rollout.prompts import PromptOrder, run_prompts

WARM_UP_STEPS = 1
_DEADLINE_S = 800.0  # below the job's own, so that the process is ended by name


def train(
    workload: Workload, run: RunSettings, name: str, more: dict[str, Any]
) -> tuple[list[float], list[float]]:
    """(seconds, mean reward) of every step. more: of GRPOConfig, beside or instead of what follows from the
    run's settings.

    Raises RunFailed with TRL's last line.
    """
    file, steps_file = (workload.scratch / f"{name}{suffix}" for suffix in (".work.json", ".steps.jsonl"))
    work = {
        "model": str(workload.model_folder),
        "prompts": prompts(run),
        "function": (run.judge.function or "").split(":")[1],
        "config": config(run, workload.scratch / name) | more,
        "steps_file": str(steps_file),
    }
    file.write_text(json.dumps(work))
    cores = len(os.sched_getaffinity(0))
    environment = {
        **ENVIRONMENT,
        "OMP_NUM_THREADS": str(cores),
        "VLLM_CPU_KVCACHE_SPACE": str(round(run.rollout.kv_cache_gib)),
    }
    arguments = ["-m", "dynalign.benchmarks.trl.trainer", str(file)]
    run_python(
        arguments, workload.scratch / f"{name}.log", _DEADLINE_S, environment, trl_python(workload.scratch)
    )
    steps = [json.loads(line) for line in steps_file.read_text().splitlines()]
    return [step_s for step_s, _ in steps], [reward for _, reward in steps]


def prompts(run: RunSettings) -> list[str]:
    """Those of the run's draws, in their order."""
    train = run_prompts(run.prompts).train
    order = PromptOrder(len(train), run.seed)
    return [train[order.at(draw).index].prompt for draw in range(run.steps * run.rollout.prompts_per_step)]


def config(run: RunSettings, folder: Path) -> dict[str, Any]:
    """Of GRPOConfig: one update per batch and no KL term are its defaults, and the run's."""
    rollout = run.rollout
    algorithm = run.algorithm
    learner = run.learner
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": learner.precision
        == "bfloat16",  # autocast over float32 weights, which are the learner's masters
        "gradient_checkpointing": learner.gradient_checkpointing,
        "max_steps": run.steps,
        "per_device_train_batch_size": rollout.group_size,
        "gradient_accumulation_steps": rollout.prompts_per_step,
        "num_generations": rollout.group_size,
        "max_completion_length": rollout.max_completion_tokens,
        "shuffle_dataset": False,
        "learning_rate": learner.learning_rate,
        "lr_scheduler_type": learner.schedule,
        "weight_decay": learner.weight_decay,
        "adam_beta1": learner.adam_beta1,
        "adam_beta2": learner.adam_beta2,
        "max_grad_norm": learner.grad_clip,
        "epsilon": algorithm.clip_low,
        "epsilon_high": algorithm.clip_high,
        "beta": algorithm.kl_coef,
        "loss_type": "dapo",  # token_mean: over the completion tokens of the whole step
        "seed": run.seed,
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
