"""Room for a run in a cluster: what is asked of its autoscaler."""

import pytest

from launch.nodes import UNKNOWN
from launch.plan import plan
from launch.room import shapes
from tests.test_model_shape import SMOL
from tests.test_plan import run


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["rollout.workers=2", "rollout.engine_threads=3"], [{"CPU": 1.0}, {"CPU": 3.0}, {"CPU": 3.0}]),
        (["placement.device=gpu"], [{"CPU": 1.0, "GPU": 1.0}] * 2),
        (["placement.device=gpu", "rollout.tensor_parallel=4"], [{"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 4.0}]),
        (["placement.device=gpu", "placement.mode=shared", "algorithm.max_staleness=0"], [{"CPU": 1.0, "GPU": 0.5}] * 2),
    ],
)
def test_what_a_run_starts_with_is_asked_of_the_autoscaler(overrides: list[str], wanted: list[dict[str, float]]) -> None:
    settings = run(*overrides)
    assert shapes(plan(settings, SMOL, UNKNOWN, 100)) == wanted
