"""What a run requests of a cluster's autoscaler."""

import pytest

from dynalign.launch.plan.nodes import UNKNOWN
from dynalign.launch.plan.plan import plan
from dynalign.launch.ray_cluster.capacity_wait import shapes
from tests.launch.models.test_shape import SMOL
from tests.launch.plan.test_plan import run


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["rollout.workers=2", "rollout.engine_threads=3"], [{"CPU": 1.0}, {"CPU": 3.0}, {"CPU": 3.0}]),
        (["placement.device=gpu"], [{"CPU": 1.0, "GPU": 1.0}] * 2),
        (
            ["placement.device=gpu", "rollout.tensor_parallel=4"],
            [{"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 4.0}],
        ),
        (
            ["placement.device=gpu", "placement.mode=shared", "algorithm.max_staleness=0"],
            [{"CPU": 1.0, "GPU": 0.5}] * 2,
        ),
    ],
)
def test_what_a_run_starts_with_is_asked_of_the_autoscaler(
    overrides: list[str], wanted: list[dict[str, float]]
) -> None:
    settings = run(*overrides)
    assert shapes(plan(settings, SMOL, UNKNOWN, 100)) == wanted
