"""A step whose loss or gradient is not finite changes no weight, no optimizer state and no version."""

import math
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dynalign.configs.errors import LearnerLost, StepNotFinite
from dynalign.learner.weights import read_version
from dynalign.rollout.records import Group
from tests.worlds.one_rank import Learner
from tests.worlds.tiny_groups import payloads, random_groups
from tests.worlds.tiny_models import settings, tiny_llama

RATE = 1e-2


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough (100,000 elements per matrix) that ZeRO 3 really shards it."""
    return tiny_llama(tmp_path_factory.mktemp("wide"), hidden=128, vocabulary=1024)


def learner_of(folder: Path, **changed: Any) -> Learner:
    return Learner(settings(folder, **changed), folder, 0, 1)


def trained(learner: Learner, step: int, groups: Sequence[Group]) -> dict[str, Any]:
    learner.prepare(step, *payloads(groups))
    return learner.run(step)


def state_of(learner: Learner) -> dict[str, Tensor]:
    version = learner.weights(1)
    assert version is not None
    return dict(read_version(*version))


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert [name for name, tensor in one.items() if not torch.equal(tensor, other[name])] == []


STAGES_AND_PRECISIONS = [
    {"zero_stage": stage, "precision": precision}
    for stage in (0, 1, 2, 3)
    for precision in ("float32", "bfloat16")
]


def test_weights_that_are_not_finite_are_never_reported_as_a_step(llama: Path) -> None:
    learner = learner_of(llama)
    with torch.no_grad():
        learner._policy.model.model.norm.weight.fill_(float("inf"))
    with pytest.raises(StepNotFinite, match="step 1: loss nan"):
        trained(learner, 1, random_groups(2))
    assert learner.step == 0


@pytest.mark.parametrize("changed", STAGES_AND_PRECISIONS, ids=str)
@pytest.mark.parametrize("factor", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_changes_nothing(
    wide: Path, changed: dict[str, Any], factor: float
) -> None:
    learner = learner_of(wide, **changed)
    undisturbed = learner_of(wide, **changed)
    first = trained(learner, 1, random_groups(2))
    trained(undisturbed, 1, random_groups(2))
    before = state_of(learner)
    fault = learner._policy.model.model.layers[0].register_full_backward_hook(
        lambda module, given, wanted: (given[0] * factor,)
    )
    with pytest.raises(StepNotFinite, match="step 2: .*gradient norm (inf|nan)") as raised:
        trained(learner, 2, random_groups(3, seed=5))
    fault.remove()
    assert pickle.loads(pickle.dumps(raised.value)).step == 2
    assert learner.step == 1
    assert learner.run(1) == first
    assert_equal(state_of(learner), before)
    # The optimizer's moments and count are as before too: the next step is that of an undisturbed learner.
    report = trained(learner, 2, random_groups(2, seed=6))
    expected = trained(undisturbed, 2, random_groups(2, seed=6))
    assert (report["loss"], report["grad_norm"]) == (expected["loss"], expected["grad_norm"])
    assert_equal(state_of(learner), state_of(undisturbed))


@pytest.mark.parametrize("changed", STAGES_AND_PRECISIONS, ids=str)
def test_a_loss_that_is_not_finite_updates_nothing_even_if_its_gradient_is(
    wide: Path, changed: dict[str, Any]
) -> None:
    learner = learner_of(wide, **changed)
    before = state_of(learner)
    learner.prepare(1, *payloads(random_groups(1)))
    assert learner._plan is not None
    inputs = learner._grpo._inputs(learner._plan.rows_of_minibatches[0][0])
    value, *_ = learner._engine.forward(*inputs, lambda logprobs_t, tokens: logprobs_t.sum() + math.inf)
    learner._engine.backward(value)
    assert not math.isfinite(learner._engine.step(RATE))
    assert_equal(state_of(learner), before)


def test_a_policy_without_finite_log_probabilities_is_refused_before_the_first_minibatch(llama: Path) -> None:
    learner = learner_of(llama, minibatches=2)
    with torch.no_grad():
        learner._policy.model.model.norm.weight.fill_(float("inf"))
    with pytest.raises(StepNotFinite, match="step 1"):
        trained(learner, 1, random_groups(4))
    assert learner.step == 0


def test_a_later_minibatch_that_is_not_finite_loses_the_learner(llama: Path) -> None:
    learner = learner_of(llama, minibatches=2)
    updates = iter((1.0, float("inf")))
    learner._policy.model.model.layers[0].register_full_backward_hook(
        lambda module, given, wanted: (given[0] * next(updates),)
    )
    with pytest.raises(LearnerLost, match=r"minibatch 2 of step 1: .*but 1 before it were"):
        trained(learner, 1, random_groups(2))
    assert learner.step == 0
