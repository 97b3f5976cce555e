"""The engines of `judge.pool` in the plan: where they are, what they need, what is refused in one line."""

import pytest

from dynalign.configs.load import load_run
from dynalign.launch.plan.nodes import UNKNOWN, Cluster
from dynalign.launch.plan.plan import PlacementPlan, plan
from dynalign.launch.plan.refusals import refusals
from dynalign.launch.plan.text import plan_lines
from dynalign.launch.ray_cluster.capacity_wait import shapes
from tests.launch.models.test_shape import SMOL
from tests.launch.plan.test_placement import GB, GPU, IN_TURN, QWEN_8B, cluster, here

POOL = "judge.pool={}"


def planned(
    on: Cluster,
    overrides: str,
    *more: str,
    context_tokens: int = 900,
    other: bool = False,
    judge_tokens: int | None = None,
) -> PlacementPlan:
    settings = load_run("quickstart", [*overrides.split(), *more]).settings
    return plan(settings, SMOL, on, context_tokens, QWEN_8B if other else None, judge_tokens)


def places(result: PlacementPlan) -> list[tuple[int | None, tuple[int, ...], tuple[int, ...]]]:
    assert result.pool is not None
    return [(each.node, each.cores, each.gpus) for each in result.pool.placements]


def refused(result: PlacementPlan) -> list[str]:
    return [mistake.place for mistake in refusals(result)]


def test_without_a_pool_nothing_is_planned_for_one() -> None:
    result = planned(here(2, 16), "")
    assert result.pool is None
    assert "judge" not in " ".join(plan_lines(result))


def test_on_cores_the_engines_come_after_workers_and_ranks_and_before_workers_that_may_join() -> None:
    joining = "rollout.workers={min: 1, max: 2}"
    result = planned(here(8, 64), "", joining, "judge.pool={engines: 2, engine_threads: 2}")
    assert places(result) == [(0, (2, 3), ()), (0, (4, 5), ())]
    assert result.cores == {
        "rollout-0": (0,), "learner-0": (1,), "judge-0": (2, 3), "judge-1": (4, 5), "rollout-1": (6,)
    }  # fmt: skip
    assert refused(result) == []


def test_on_gpus_of_their_own_beside_learner_and_rollout() -> None:
    result = planned(here(8, 64, 3), f"{GPU} {POOL}")
    assert places(result) == [(0, (), (2,))]
    assert result.rollout.placements[0].gpus == (1,)
    assert refused(result) == []
    in_turn = planned(here(8, 64, 3), IN_TURN, "judge.pool={tensor_parallel: 2}")
    assert refused(in_turn) == ["judge.pool.tensor_parallel"]  # nine heads are not dealt over two
    assert places(in_turn) == [(0, (), (1, 2))]
    assert in_turn.rollout.placements[0].gpus == in_turn.learner.placements[0].gpus == (0,)


def test_on_a_cluster_they_are_where_room_is_left_and_more_workers_have_what_remains() -> None:
    joining = "rollout.workers={min: 1, max: 9}"
    result = planned(cluster(2, 4), GPU, joining, "judge.pool={engines: 2}")
    assert {node for node, _, _ in places(result)} <= {0, 1}
    assert result.more_engines == 6 - 1 - 1 - 2
    assert {"GPU": 1.0, "CPU": 1.0} in shapes(result)
    assert len(shapes(result)) == 4


def test_too_few_gpus_are_refused_in_one_line_that_names_the_pool() -> None:
    (mistake,) = refusals(planned(here(8, 64, 2), f"{GPU} {POOL}"))
    assert str(mistake).startswith(
        "placement.device = 'gpu': rollout.workers.min=1, learner.ranks=1, judge.pool.engines=1, "
        "placement.mode=separate take 3 GPUs, and this machine has 2; "
    )


def test_a_single_gpu_is_not_split_with_a_pool() -> None:
    assert refused(planned(here(8, 64, 1), f"{GPU} {POOL}")) == ["placement.device"]


def test_engines_that_fit_on_no_node_beside_the_others_are_refused() -> None:
    result = planned(cluster(2, 4), GPU, "judge.pool={engines: 1, tensor_parallel: 3}")
    assert refused(result) == []
    tight = planned(
        cluster(2, 2, 2), f"{GPU} rollout.workers=2", "judge.pool={engines: 1, tensor_parallel: 3}"
    )
    assert "judge.pool.tensor_parallel" in refused(tight)


def test_too_little_memory_is_refused_with_the_largest_part_which_may_be_the_pools() -> None:
    (mistake,) = refusals(planned(here(4, 16), "", "judge.pool={kv_cache_gib: 40.0}"))
    assert mistake.place == "memory"
    assert "key-values (judge.pool.kv_cache_gib, " in mistake.rule
    (gpu,) = refusals(planned(here(8, 64, 3, 10 * GB), f"{GPU} {POOL}", other=True))
    assert gpu.place == "GPU memory of one judge actor"
    assert "weights (8.19 G x 2 B)" in gpu.rule


def test_the_host_memory_of_a_node_counts_the_pool() -> None:
    with_pool = planned(here(4, 64), "", POOL)
    assert with_pool.pool is not None
    without = planned(here(4, 64), "")
    assert with_pool.host_bytes(0) - without.host_bytes(0) == with_pool.pool.bytes_on("host")
    weights = next(part for part in with_pool.pool.memory if part.name == "weights")
    assert weights.size_bytes == 2 * 2 * SMOL.parameters


@pytest.mark.parametrize(
    ("pool", "place"),
    [
        ("{kv_cache_gib: 0.001}", "judge.pool.kv_cache_gib"),
        ("{context_tokens: 9000}", "judge.pool.context_tokens"),
    ],
)
def test_a_context_that_cache_or_model_cannot_hold_is_refused(pool: str, place: str) -> None:
    assert refused(planned(here(4, 64), "", f"judge.pool={pool}")) == [place]


def test_on_an_unknown_cluster_the_engines_are_planned_nowhere_and_shown() -> None:
    result = planned(UNKNOWN, "", "judge.pool={engines: 3}")
    assert places(result) == [(None, (), ())] * 3
    assert any(line.startswith("judge x 3") for line in plan_lines(result))


def test_the_deterministic_engine_needs_no_memory_for_a_model() -> None:
    result = planned(here(4, 16), "", "judge.pool={engine: deterministic}")
    assert result.pool is not None
    assert [part.name for part in result.pool.memory] == ["process"]


@pytest.mark.parametrize("engine", ["vllm", "deterministic"])
def test_a_pool_holds_the_longest_question_of_the_judges_by_default_and_no_less_is_allowed(
    engine: str,
) -> None:
    by_default = planned(here(4, 64), "", f"judge.pool={{engine: {engine}}}", judge_tokens=2400)
    assert by_default.pool_context_tokens == 2400
    assert refused(by_default) == []
    assert any(
        "judge's longest question has 2,400 with its answer" in line for line in plan_lines(by_default)
    )
    assert by_default.on(UNKNOWN).pool_context_tokens == 2400
    short = f"judge.pool={{engine: {engine}, context_tokens: 1424}}"
    (mistake,) = refusals(planned(here(4, 64), "", short, judge_tokens=2400))
    assert (mistake.place, mistake.value) == ("judge.pool.context_tokens", 1424)
    assert mistake.rule == "the longest question of this run's judges has 2,400 tokens with its answer"
    assert mistake.remedy == "set it to 2400 or more, or to null"
    exact = f"judge.pool={{engine: {engine}, context_tokens: 2400}}"
    assert refused(planned(here(4, 64), "", exact, judge_tokens=2400)) == []


def test_a_model_whose_contexts_are_shorter_than_the_longest_question_is_refused_with_what_helps() -> None:
    (mistake,) = refusals(planned(here(4, 64), "", POOL, judge_tokens=9000))
    assert mistake.place == "judge.pool.context_tokens"
    assert "end at 8,192 tokens, and one can have 9,000" in mistake.rule
    assert "take a model with longer contexts" in mistake.remedy


def test_the_gateway_is_planned_beside_the_driver() -> None:
    endpoint = "judge.endpoints={big: {address: 'http://judge/v1', model: gpt}}"
    result = planned(
        here(4, 16), "", "judge.kind=external", "judge.models=[big]", endpoint, judge_tokens=2400
    )
    (row,) = [line for line in plan_lines(result) if line.startswith("gateway")]
    assert "the driver's node" in row
    assert "2,400" in row
    assert "gateway" in [part.name for part in result.common]
    assert "gateway" not in [part.name for part in planned(here(4, 16), "").common]
