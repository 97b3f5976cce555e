"""A run with what is asked beside its groups: real harness, learner and actors; an engine without a model."""

from pathlib import Path

import pytest

from dynalign.run_folder.metrics import read_capability, read_heldout, read_metrics
from tests.worlds.command import train
from tests.worlds.tiny_run import config

STEPS = 7


@pytest.mark.e2e
def test_a_run_asks_its_initial_policy_all_items_and_later_ones_beside_its_groups(tmp_path: Path) -> None:
    file = config(
        tmp_path,
        rollout={"prompts_per_step": 4, "group_size": 8, "max_completion_tokens": 128},
        learner={"token_budget": 8192},
    )
    probe = ["capability.items=30", "capability.every_steps=3", "algorithm.max_staleness=1"]
    ended = train(file, f"steps={STEPS}", *probe)
    assert ended.code == 0, ended.output
    assert "capability probe: 30 items" in ended.output
    folder = tmp_path / "runs" / "tiny"
    points = read_capability(folder)
    assert list(points) == [0, 3, 6]
    assert {item.score for item in points[0]} <= {0.0, 1.0}
    answered = [item for point in (3, 6) for item in points[point] if item.score is not None]
    assert answered
    assert all(item.step <= item.version_min <= item.version_max <= item.closed_step for item in answered)
    # Besides what was trained, groups on their way have paid, and one answer may be under way.
    spent = sum(row["capability_tokens"] or 0 for row in read_metrics(folder))
    assert 0 < spent <= 0.05 * sum(row["completion_tokens"] or 0 for row in read_metrics(folder)) + 600


@pytest.mark.e2e
def test_a_run_goes_on_while_its_policy_answers_held_out_prompts(tmp_path: Path) -> None:
    file = config(
        tmp_path,
        rollout={"prompts_per_step": 4, "group_size": 8, "max_completion_tokens": 128},
        learner={"token_budget": 8192},
    )
    heldout = ["heldout.prompts=1", "heldout.every_steps=1", "heldout.waits=false", "heldout.prompted=false"]
    ended = train(file, f"steps={STEPS}", *heldout, "algorithm.max_staleness=1")
    assert ended.code == 0, ended.output
    folder = tmp_path / "runs" / "tiny"
    items = read_heldout(folder)
    steps = sorted({item.step for item in items})
    assert (steps[0], steps[-1]) == (0, STEPS)
    assert len(steps) > 2
    for item in items:
        versions = (item.version_min or 0, item.version_max or 0)
        assert versions == (item.step, item.step) or item.step not in (0, STEPS)
        assert versions[0] <= versions[1] <= item.step
    spent = sum(row["evaluation_tokens"] or 0 for row in read_metrics(folder))
    assert 0 < spent <= 0.05 * sum(row["completion_tokens"] or 0 for row in read_metrics(folder)) + 600
