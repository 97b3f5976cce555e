"""What the capability probe costs a step: in virtual time, on engines that are as slow as they can be beside
it."""

from itertools import islice
from pathlib import Path
from statistics import fmean

import pytest

from dynalign.configs.schema import RunSettings
from dynalign.run_folder.metrics import read_capability
from tests.worlds.paced_run import PacedRun

STEPS = 6


def settings(items: int, workers: int, slots: int, prompts: int, staleness: int) -> RunSettings:
    return RunSettings.model_validate(
        {
            "name": "paced",
            "model": "none",
            "steps": STEPS,
            "tensorboard": False,
            "log_level": "error",
            "rollout": {
                "prompts_per_step": prompts,
                "group_size": 8,
                "groups_in_flight": slots,
                "max_completion_tokens": 256,
                "workers": {"min": workers, "max": workers},
            },
            "algorithm": {"max_staleness": staleness},
            "capability": {"items": items, "every_steps": 1},
            "heldout": {"prompts": 0},
            "metrics": {"port": None},
        }
    )


@pytest.mark.parametrize(
    ("workers", "slots", "prompts", "staleness", "tokens_per_s"),
    [
        (1, 1, 8, 1, 1000.0),  # generating takes longer than learning
        (2, 4, 8, 0, 500.0),  # they take turns
        (4, 4, 8, 2, 10_000.0),  # learning takes longer
    ],
)
def test_a_step_takes_at_most_a_twentieth_longer_with_the_probe(
    workers: int, slots: int, prompts: int, staleness: int, tokens_per_s: float, tmp_path: Path
) -> None:
    shape = (workers, slots, prompts, staleness)
    without = PacedRun(tmp_path / "without", settings(0, *shape), tokens_per_s).live()
    beside = PacedRun(tmp_path / "with", settings(60, *shape), tokens_per_s).live()
    assert fmean(islice(beside, 1, None)) <= 1.05 * fmean(islice(without, 1, None))
    points = read_capability(tmp_path / "with")
    assert sorted(points) == list(range(STEPS))
    assert sum(item.score is not None for point in points.values() for item in point) > 60 + STEPS
