"""A learner that gives its device away and takes it back goes on as if it had kept it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dynalign.configs.sections.learner import LoraSettings
from dynalign.learner.weights import read_version
from tests.worlds.one_rank import Learner
from tests.worlds.tiny_groups import payloads, random_groups
from tests.worlds.tiny_models import settings, tiny_llama


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


def train(learner: Learner, step: int) -> float:
    learner.prepare(step, *payloads(random_groups(2, seed=step)))
    return float(learner.run(step)["loss"] or 0.0)


def weights_of(learner: Learner) -> dict[str, torch.Tensor]:
    version = learner.weights(1)
    assert version is not None
    return dict(read_version(*version))


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"zero_stage": 2, "precision": "bfloat16"},
        {"zero_stage": 1, "lora": LoraSettings(rank=4)},
        {"zero_stage": 3},
    ],
    ids=str,
)
def test_sleep_between_steps_changes_no_bit(llama: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    awake, sleeper = (Learner(settings(llama, kl_coef=0.1, **changed), llama, 0, 1) for _ in range(2))
    for step in (1, 2):
        assert train(awake, step) == train(sleeper, step)
        sleeper.sleep()
        assert equal(weights_of(awake), weights_of(sleeper))
        sleeper.wake()
    sleeper.sleep()
    sleeper.save(tmp_path)
    resumed = Learner(settings(llama, kl_coef=0.1, **changed), llama, 0, 1)
    resumed.load(tmp_path)
    assert train(resumed, 3) == train(awake, 3)
    assert equal(weights_of(awake), weights_of(resumed))
