"""A whole step of the learner, against the same step written out: one sequence at a time, plain torch, no
packing, no DeepSpeed.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from dynalign.configs.errors import RecordError
from dynalign.configs.sections.algorithm import AlgorithmSettings
from dynalign.configs.sections.learner import LoraSettings
from dynalign.configs.sections.rollout import RolloutSettings
from dynalign.learner.experience import read_step
from dynalign.learner.weights import read_version
from dynalign.rollout.records import Group
from tests.worlds.one_rank import Learner
from tests.worlds.tiny_groups import candidate, group, payloads, random_groups
from tests.worlds.tiny_models import settings, tiny_llama
from tests.worlds.written_out import RATE, WrittenOut

RECORDED = RolloutSettings(group_size=2, max_completion_tokens=16, dtype="float32", record_behaviour=True)
"""The loss corrects for the difference between engine and learner."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough (100,000 elements per matrix) that ZeRO 3 really shards it."""
    return tiny_llama(tmp_path_factory.mktemp("wide"), hidden=128, vocabulary=1024)


def learner_of(folder: Path, **changed: Any) -> Learner:
    return Learner(settings(folder, **changed), folder, 0, 1)


def trained(
    learner: Learner, step: int, groups: Sequence[Group], present_fraction: float = 1.0
) -> dict[str, Any]:
    learner.prepare(step, *payloads(groups), present_fraction)
    return learner.run(step)


def state_of(learner: Learner) -> dict[str, Tensor]:
    version = learner.weights(1)
    assert version is not None
    return dict(read_version(*version))


def agree(learner: Learner, written_out: WrittenOut) -> None:
    """Adam divides by the gradient's own size, so a weight whose gradient is rounding alone may step either
    way: few may differ.
    """
    published = state_of(learner)
    differing = total = 0
    for name, parameter in written_out.model.named_parameters():
        differing += int(((published[name] - parameter).abs() > 0.02 * RATE).sum())
        total += parameter.numel()
    assert differing <= total / 1000


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_a_step_equals_the_same_step_written_out(llama: Path, wide: Path, zero_stage: int) -> None:
    folder = wide if zero_stage == 3 else llama
    run = settings(folder, zero_stage=zero_stage)
    recorded = run.rollout.model_copy(update={"record_behaviour": True})
    learner = Learner(run.model_copy(update={"rollout": recorded}), folder, 0, 1)
    written_out = WrittenOut(folder)
    for step in (1, 2):
        groups = random_groups(3, seed=step, behaviour=True)
        report = trained(learner, step, groups)
        loss, norm = written_out.step([groups])
        assert report["loss"] == pytest.approx(loss, rel=1e-4, abs=1e-6)
        assert report["grad_norm"] == pytest.approx(norm, rel=1e-4)
    agree(learner, written_out)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_a_step_is_as_long_as_the_schedule_says(llama: Path, zero_stage: int, precision: str) -> None:
    # Adam's first step is the learning rate itself, whatever the gradient.
    learner = learner_of(llama, zero_stage=zero_stage, precision=precision, learning_rate=0.4, warmup_steps=4)
    before = state_of(learner)
    assert trained(learner, 1, random_groups(2))["learning_rate"] == pytest.approx(0.1)
    moved = max(float((tensor - before[name]).abs().max()) for name, tensor in state_of(learner).items())
    assert moved == pytest.approx(0.1, rel=0.05)


def test_minibatches_keep_the_ratio_to_the_policy_at_the_start(llama: Path) -> None:
    learner, written_out = learner_of(llama, minibatches=2), WrittenOut(llama)
    groups = random_groups(4)
    report = trained(learner, 1, groups)
    loss, norm = written_out.step([groups[:2], groups[2:]])
    assert report["loss"] == pytest.approx(loss, rel=1e-4)
    assert report["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert report["ratio_max"] > 1.01
    agree(learner, written_out)


def test_the_kl_term_pulls_towards_the_initial_policy(llama: Path) -> None:
    learner, written_out = learner_of(llama, kl_coef=0.5, minibatches=2), WrittenOut(llama, kl_coef=0.5)
    for step in (1, 2):
        groups = random_groups(4, seed=step)
        report = trained(learner, step, groups)
        loss, norm = written_out.step([groups[:2], groups[2:]])
        assert report["loss"] == pytest.approx(loss, rel=1e-3)
        assert report["grad_norm"] == pytest.approx(norm, rel=1e-3)
        assert report["kl"] > 0


@pytest.mark.parametrize(("tapers", "distill_coef"), [(True, 0.0), (False, 0.5), (True, 0.5)])
def test_a_step_with_taper_and_distillation_equals_the_same_step_written_out(
    llama: Path, tapers: bool, distill_coef: float
) -> None:
    run = settings(llama, minibatches=2)
    changed = {"context_taper": tapers, "distill_coef": distill_coef}
    algorithm = run.algorithm.model_copy(update=changed)
    recorded = run.rollout.model_copy(update={"record_behaviour": True})
    learner = Learner(run.model_copy(update={"algorithm": algorithm, "rollout": recorded}), llama, 0, 1)
    plain = learner_of(llama, minibatches=2)
    written_out = WrittenOut(llama, tapers=tapers, distill_coef=distill_coef)
    groups = random_groups(4, behaviour=True)
    report = trained(learner, 1, groups)
    loss, norm = written_out.step([groups[:2], groups[2:]])
    assert report["loss"] == pytest.approx(loss, rel=1e-4, abs=1e-6)
    assert report["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert report["ratio_mean"] == pytest.approx(1.0, abs=0.5)
    assert trained(plain, 1, groups)["grad_norm"] != pytest.approx(norm, rel=1e-3)
    agree(learner, written_out)


def test_with_adapters_the_initial_policy_is_the_one_without_them(llama: Path) -> None:
    learner = learner_of(llama, kl_coef=0.5, lora=LoraSettings(rank=4))
    first, second = (trained(learner, step, random_groups(2)) for step in (1, 2))
    assert first["kl"] == pytest.approx(0.0, abs=1e-9)
    assert second["kl"] > 1e-6


def test_adapters_learn_and_everything_else_stays(llama: Path) -> None:
    learner = learner_of(llama, lora=LoraSettings(rank=4, targets=("q_proj",)))
    before = state_of(learner)
    trained(learner, 1, random_groups(2))
    trained(learner, 2, random_groups(2))
    changed = {name for name, tensor in state_of(learner).items() if not torch.equal(tensor, before[name])}
    assert changed == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)}


def test_on_policy_the_ratio_is_one_and_nothing_is_clipped(llama: Path) -> None:
    report = trained(learner_of(llama), 1, random_groups(3))
    assert (report["ratio_mean"], report["ratio_max"], report["effective_sample_size"]) == (
        1.0,
        1.0,
        pytest.approx(1.0),
    )
    assert (report["clip_low_fraction"], report["clip_high_fraction"]) == (0.0, 0.0)
    assert 0 < report["entropy"] < math.log(96)
    assert report["kl"] is None
    assert report["logprob_mismatch_mean"] is None
    assert report["learning_rate"] == RATE
    assert report["learn_tokens_per_s"] > 0


def test_the_mismatch_is_the_mean_difference_to_what_the_engine_recorded(llama: Path) -> None:
    pair = [candidate([5, 6], 1.0), candidate([7], 2.0)]
    report = trained(learner_of(llama, group_size=2), 1, [group(1, [3, 4], pair)])
    assert report["logprob_mismatch_mean"] is None
    recorded = [candidate([5, 6], 1.0, [-9.0, -9.0]), candidate([7], 2.0)]
    policy = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    mine = WrittenOut.logprobs(policy, group(1, [3, 4], recorded), 0)
    report = trained(learner_of(llama, group_size=2), 1, [group(1, [3, 4], recorded)])
    assert report["logprob_mismatch_mean"] == pytest.approx(float((mine.detach() + 9).abs().mean()), rel=1e-4)


def test_what_the_engine_recorded_of_a_sample_is_compared_and_changes_no_weight(llama: Path) -> None:
    pair = [candidate([5, 6], 1.0), candidate([7], 2.0)]
    sampled = [candidate([5, 6], 1.0, [-9.0, -9.0]), candidate([7], 2.0)]
    plain, compared = (learner_of(llama, group_size=2) for _ in range(2))
    run = settings(llama, group_size=2).model_copy(update={"rollout": RECORDED})
    corrected = Learner(run, llama, 0, 1)
    reports = [
        trained(learner, 1, [group(1, [3, 4], candidates)])
        for learner, candidates in ((plain, pair), (compared, sampled), (corrected, sampled))
    ]
    mismatches = [report["logprob_mismatch_mean"] for report in reports]
    assert mismatches[0] is None
    assert mismatches[1] == mismatches[2] > 1.0
    weights = [state_of(learner) for learner in (plain, compared, corrected)]
    name = "model.norm.weight"
    assert all(torch.equal(tensor, weights[1][each]) for each, tensor in weights[0].items())
    assert not torch.equal(weights[0][name], weights[2][name])


def test_a_step_asked_for_twice_is_answered_twice_and_trained_once(llama: Path) -> None:
    learner, groups = learner_of(llama), random_groups(2)
    report = trained(learner, 1, groups)
    before = state_of(learner)
    assert trained(learner, 1, groups) == report
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(learner).items())
    assert learner.trained_group_ids(1) == (0, 1)
    assert learner.trained_group_ids(2) == ()


def test_a_batch_prepared_again_replaces_the_one_before(llama: Path) -> None:
    first, second = learner_of(llama), learner_of(llama)
    first.prepare(1, *payloads(random_groups(3, seed=8)))
    report = trained(first, 1, random_groups(2, seed=9))
    assert report["loss"] == trained(second, 1, random_groups(2, seed=9))["loss"]


def test_steps_follow_one_another(llama: Path) -> None:
    learner = learner_of(llama)
    with pytest.raises(ValueError, match="step 2 was asked for, but the last step trained is 0"):
        learner.prepare(2, *payloads(random_groups(2)))
    with pytest.raises(ValueError, match="step 1 was not prepared"):
        learner.run(1)


def test_missing_groups_scale_the_loss(llama: Path) -> None:
    groups = random_groups(2)
    whole, half = (trained(learner_of(llama), 1, groups, fraction) for fraction in (1.0, 0.5))
    assert half["loss"] == pytest.approx(0.5 * whole["loss"])
    assert half["grad_norm"] == pytest.approx(0.5 * whole["grad_norm"], rel=1e-5)


def test_a_batch_without_tokens_trains_nothing_and_counts_as_a_step(llama: Path) -> None:
    learner = learner_of(llama)
    before = state_of(learner)
    report = trained(learner, 1, [], 0.0)
    assert learner.step == 1
    assert (report["loss"], report["grad_norm"], report["completion_tokens"]) == (None, None, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(learner).items())
    assert trained(learner, 2, random_groups(2))["loss"] is not None


def test_fewer_groups_than_minibatches_are_trained_one_by_one(llama: Path) -> None:
    assert trained(learner_of(llama, minibatches=3), 1, random_groups(2))["loss"] is not None


def test_a_token_outside_the_vocabulary_is_refused_before_anything_is_computed(llama: Path) -> None:
    with pytest.raises(RecordError, match="token 96 is not in this model's vocabulary of 96"):
        learner_of(llama, group_size=2).prepare(
            1, *payloads([group(1, [3], [candidate([96], 1.0), candidate([5], 2.0)])])
        )


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_bfloat16_keeps_float32_masters(wide: Path, zero_stage: int) -> None:
    # 1e-4 is less than half of the last bit of most bfloat16 weights: without masters they would never move.
    learner = learner_of(wide, zero_stage=zero_stage, precision="bfloat16", learning_rate=1e-4)
    before = state_of(learner)
    for step in range(1, 9):
        trained(learner, step, random_groups(2))
    name = "model.layers.0.mlp.up_proj.weight"
    assert float((state_of(learner)[name] != before[name]).float().mean()) > 0.2


@pytest.mark.parametrize(
    ("scale", "advantage"), [("group", 1.5 / (4.5**0.5 + 1e-4)), ("batch", 1.5 / 1.2501), ("none", 1.5)]
)
def test_the_advantage_scale_is_the_configured_one(
    llama: Path, tmp_path: Path, scale: Any, advantage: float
) -> None:
    # scores 1, 4, 2, 2.5: the first group's std is √4.5, the batch's is 1.25
    pair = [
        group(1, [3, 4], [candidate([5], 1.0), candidate([6], 4.0)]),
        group(2, [3, 4], [candidate([5], 2.0), candidate([6], 2.5)]),
    ]
    changed = {"algorithm": AlgorithmSettings(advantage_scale=scale)}
    run = settings(llama, group_size=2).model_copy(update=changed)
    learner = Learner(run, llama, 0, 1)
    trained(learner, 1, pair)
    file = learner.write_experience(1, tmp_path)
    assert file is not None
    (_, advantages_G), _ = read_step(file)
    assert advantages_G == pytest.approx((-advantage, advantage))
