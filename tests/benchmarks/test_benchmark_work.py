"""What the benchmark measures: that its contestants do one work, how much that is, and where a step begins
and ends.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from dynalign.benchmarks import whole_run, whole_step
from dynalign.benchmarks.__main__ import run_job
from dynalign.benchmarks.floating_point import step_operations
from dynalign.benchmarks.trl import step as trl_step
from dynalign.benchmarks.trl.environment import trl_python
from dynalign.benchmarks.whole_run import rollout_side_s, step_walls_s
from dynalign.benchmarks.workload import CONFIGS, Workload
from dynalign.configs.errors import NotMeasurable
from dynalign.configs.load import load_run
from dynalign.launch.models.shape import read_shape
from dynalign.learner.batch import TrainingBatch, decode_groups
from dynalign.learner.rows.rows import Row, build_rows, plan_rows
from dynalign.rollout.judges.value_texts import load_value_texts
from dynalign.run_folder.layout import experience_file
from tests.worlds.tiny_groups import payloads, random_groups
from tests.worlds.tiny_models import settings, tiny_llama


def test_generation_and_scoring_at_one_time_count_once() -> None:
    row = {"generate_s": 6.0, "score_s": 4.0, "rollout_idle_fraction": 0.25, "step_s": 12.0}
    assert rollout_side_s(row) == 9.0  # three of twelve seconds idle: one of the ten overlapped
    assert rollout_side_s(row | {"rollout_idle_fraction": 0.0}) == 10.0


def test_a_steps_wall_is_from_one_experience_file_to_the_next(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"step": step} for step in (1, 2, 3)]
    for row, ended_s in zip(rows, (100.0, 117.5, 130.0), strict=True):
        experience_file(tmp_path, row["step"]).touch()
        os.utime(experience_file(tmp_path, row["step"]), (0.0, ended_s))
    assert step_walls_s(rows, tmp_path) == [17.5, 12.5]


def test_trl_is_given_the_runs_own_work(tmp_path: Path) -> None:
    workload = Workload(tmp_path / "model", tmp_path, tmp_path, quick=False)
    run = whole_step.settings(workload)
    assert trl_step.prompts(run)[: run.rollout.prompts_per_step] == [
        draw.prompt.prompt for draw in workload.draws()
    ]
    assert len(trl_step.prompts(run)) == run.steps * run.rollout.prompts_per_step
    config = trl_step.config(run, tmp_path)
    assert config["per_device_train_batch_size"] * config["gradient_accumulation_steps"] == 4 * 8
    same = {
        "max_completion_length": 64,
        "learning_rate": 5e-5,
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "beta": 0.0,
        "max_grad_norm": 1.0,
    }
    assert config | same == config
    assert config["bf16"]


def test_the_work_shared_with_trl_has_the_shipped_values_and_the_templates_own_system_prompt(
    tmp_path: Path,
) -> None:
    whole_step.write_values(tmp_path / "values")
    shipped = load_value_texts(None, "unified", "expected")
    texts = load_value_texts(tmp_path / "values", "unified", "expected")
    assert texts.definition == shipped.definition
    assert texts.generation_system.startswith("You are a helpful AI assistant")


def test_where_trl_cannot_run_with_vllm_the_job_says_why_and_has_not_failed(tmp_path: Path) -> None:
    python = trl_python(tmp_path)
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 'RuntimeError: no such weights'; exit 1\n")
    python.chmod(0o755)
    workload = Workload(tmp_path / "model", tmp_path, tmp_path, quick=True)
    workload.write()
    with pytest.raises(
        NotMeasurable, match="^TRL's vLLM mode does not run here: RuntimeError: no such weights$"
    ):
        run_job("trl_vllm", workload)


def test_bare_torch_does_the_learners_work_packed_and_padded(tmp_path: Path) -> None:
    from dynalign.benchmarks.bare_torch import BareTorch

    model = tiny_llama(tmp_path / "model")
    run = settings(model, group_size=4, precision="bfloat16")
    batch = TrainingBatch.of(decode_groups(*payloads(random_groups(3))), run.algorithm.advantage_scale)
    rows_R = build_rows(plan_rows(batch, range(3), run, 1), 0, run.learner.logprob_chunk_tokens)
    packed, padded = (BareTorch(model, run.learner, torch.device("cpu")) for _ in range(2))
    first = packed.packed_step(rows_R)
    assert first > 0
    assert padded.padded_step(batch) == pytest.approx(first, rel=0.02)
    assert packed.packed_step(rows_R) != first  # the weights have moved


def test_a_steps_operations_are_those_that_torch_counts(tmp_path: Path) -> None:
    """A row of one sequence in transformers' plain attention, where every query meets every key."""
    model, prompt, completion = tiny_llama(tmp_path / "model"), 5, 7
    ids_S, nothing_T = np.arange(prompt + completion), np.zeros(completion + 1, np.float32)
    predicting_T = np.arange(prompt - 1, prompt + completion)
    row = Row(
        ((prompt + completion,),),
        ids_S,
        ids_S,
        predicting_T,
        predicting_T,
        nothing_T,
        nothing_T,
        None,
        nothing_T,
        (0,),
        1,
    )
    policy = AutoModelForCausalLM.from_pretrained(model, attn_implementation="eager").train()
    with FlopCounterMode(display=False) as counter:
        hidden_SH = policy.get_decoder()(input_ids=torch.from_numpy(ids_S)[None]).last_hidden_state[0]
        policy.get_output_embeddings()(hidden_SH[torch.from_numpy(predicting_T)]).sum().backward()
    shape = read_shape(model)
    assert step_operations(shape, [row]) == counter.get_total_flops()
    apart = step_operations(shape, [replace(row, layout=((prompt, completion),))])
    unseen = prompt * completion  # the prompt's queries do not meet the completion's keys
    assert step_operations(shape, [row]) - apart == 12 * shape.layers * shape.queries * unseen


def test_work_on_a_gpu_is_that_of_the_run_shipped_for_one(tmp_path: Path) -> None:
    workload = Workload(
        tmp_path / "model",
        tmp_path,
        tmp_path,
        quick=False,
        device="gpu",
        chosen=("rollout.prompts_per_step=8",),
    )
    workload.write()
    read = Workload.read(tmp_path)
    assert read == workload
    run = read.settings()
    assert (run.placement.device, run.rollout.prompts_per_step, run.rollout.max_completion_tokens) == (
        "gpu",
        8,
        1024,
    )
    assert (
        load_run(CONFIGS["gpu"], read.overrides(*whole_run.ON_ONE_GPU)).settings.algorithm.max_staleness == 1
    )
