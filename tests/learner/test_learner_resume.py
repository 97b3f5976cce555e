"""A saved learner goes on as if it had never stopped: weights, moments, report, group ids."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dynalign.configs.errors import CheckpointError
from dynalign.configs.sections.learner import LoraSettings
from dynalign.learner.weights import read_version
from tests.worlds.one_rank import Learner
from tests.worlds.tiny_groups import payloads, random_groups
from tests.worlds.tiny_models import settings, tiny_llama

MEASURED = ("learn_s", "learn_tokens_per_s")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"), hidden=128, vocabulary=1024)


def train(learner: Learner, steps: range) -> list[dict[str, Any]]:
    reports = []
    for step in steps:
        learner.prepare(step, *payloads(random_groups(2, seed=step)))
        reports.append({name: value for name, value in learner.run(step).items() if name not in MEASURED})
    return reports


def weights_of(learner: Learner) -> dict[str, torch.Tensor]:
    version = learner.weights(1)
    assert version is not None
    return dict(read_version(*version))


@pytest.mark.parametrize(
    "changed",
    [
        {"zero_stage": stage, "precision": precision}
        for stage in (0, 1, 2, 3)
        for precision in ("float32", "bfloat16")
    ]
    + [{"zero_stage": stage, "lora": LoraSettings(rank=4)} for stage in (1, 3)],
    ids=str,
)
def test_training_continues_bitwise(llama: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    straight = Learner(settings(llama, schedule="linear", **changed), llama, 0, 1)
    train(straight, range(1, 3))
    straight.save(tmp_path)
    expected = train(straight, range(3, 5))
    resumed = Learner(settings(llama, schedule="linear", **changed), llama, 0, 1)
    assert resumed.load(tmp_path) == 2
    assert train(resumed, range(3, 5)) == expected
    other = weights_of(resumed)
    assert all(torch.equal(tensor, other[name]) for name, tensor in weights_of(straight).items())


def test_a_resumed_learner_still_answers_for_its_last_step(llama: Path, tmp_path: Path) -> None:
    first = Learner(settings(llama), llama, 0, 1)
    train(first, range(1, 3))
    first.save(tmp_path)
    resumed = Learner(settings(llama), llama, 0, 1)
    resumed.load(tmp_path)
    assert resumed.run(2) == first.run(2)
    assert resumed.trained_group_ids(2) == (0, 1)
    assert resumed.write_experience(2, tmp_path / "experience") is None


def test_a_folder_without_state_is_an_error(llama: Path, tmp_path: Path) -> None:
    learner = Learner(settings(llama), llama, 0, 1)
    with pytest.raises(CheckpointError, match=r"learner.json cannot be read"):
        learner.load(tmp_path)
    learner.save(tmp_path)
    (tmp_path / "state").rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="does not exist"):
        learner.load(tmp_path)
