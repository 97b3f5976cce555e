"""vLLM's own metrics reach Ray's under the names on the dashboards. No engine is needed, only its logger."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.metrics.stats import IterationStats, SchedulerStats

from dynalign.rollout.engine.vllm import ray_logger
from tests.actors.coordinator.test_monitoring import expressions
from tests.worlds.chat_models import tiny_chat_model


class Metric:
    """One of ray.util.metrics. tags: of the last report."""

    def __init__(
        self, name: str, description: str, tag_keys: tuple[str, ...], boundaries: object = None
    ) -> None:
        self._tag_keys = tag_keys
        self.tags: Mapping[str, str] = {}

    def report(self, value: float, tags: Mapping[str, str]) -> None:
        self.tags = tags

    set = inc = observe = report


class Metrics:
    """The module, as far as vLLM uses it. made: the metrics by name."""

    def __init__(self) -> None:
        self.made: dict[str, Metric] = {}

    def metric(self, name: str, **described: object) -> Metric:
        return self.made.setdefault(name, Metric(name, **described))  # type: ignore[arg-type]

    Gauge = Counter = Histogram = metric


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray Serve, which vLLM looks for
def test_every_metric_of_vllm_on_a_dashboard_is_one_that_its_logger_reports_to_ray_with_run_and_worker(
    tmp_path: Path,
) -> None:
    model = str(tiny_chat_model(tmp_path))
    arguments = AsyncEngineArgs(
        model=model, served_model_name="run/rollout-0", max_model_len=256, enforce_eager=True
    )
    metrics = Metrics()
    logger = ray_logger(metrics)(vllm_config=arguments.create_engine_config(), engine_indexes=[0])
    logger.record(SchedulerStats(num_running_reqs=2), IterationStats())
    asked = {
        re.sub("_(total|bucket)$", "", name)
        for each in expressions().values()
        for name in re.findall(r"ray_(vllm_\w+)", each)
    }
    assert len(asked) > 5
    assert asked <= set(metrics.made)
    assert metrics.made["vllm_num_requests_running"].tags["model_name"] == "run/rollout-0"
