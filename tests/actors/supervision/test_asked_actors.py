"""The actors that answer questions, supervised: fake actors, virtual time."""

from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from dynalign.configs.errors import EngineError, Mistake, UserError
from tests.worlds.supervised_run import ACCOUNT_OF_ENDPOINT, World

POOL = {"judge": {"pool": {"engines": 2, "engine": "deterministic"}}}


def states(world: World) -> list[str]:
    return [engine.state for engine in world.supervisor.report().engines]


def test_the_engines_of_the_pool_are_created_beside_the_workers_and_ended_with_the_run(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, **POOL).running()
    assert states(world) == ["serving", "serving"]
    assert [name for name, *_ in world.spawned if name.startswith("judge")] == ["judge-0", "judge-1"]
    world.supervisor.end()
    assert all(world.newest(name).killed for name in ("judge-0", "judge-1"))


def test_a_run_without_a_pool_or_an_endpoint_has_no_such_actors(tmp_path: Path) -> None:
    world = World(tmp_path).running()
    assert states(world) == []
    assert not {"judge-0", "gateway"} & world.created.keys()
    assert world.supervisor.report().endpoints == ()


@pytest.mark.parametrize(
    ("error", "cause"), [(ActorDiedError(), "died"), (EngineError("EngineCore died"), "failed")]
)
def test_an_engine_that_ends_is_replaced_in_its_seat_and_no_worker_is_touched(
    tmp_path: Path, error: Exception, cause: str
) -> None:
    world = World(tmp_path, **POOL).running()
    world.newest("judge-0").die(error)
    world.until(lambda: world.created["judge-0.2"] and states(world) == ["serving", "serving"])
    assert world.events() == [("judge-0", "died", cause), ("judge-0.2", "recovered", "")]
    assert world.supervisor.report().restarts == {f"engine/{cause}": 1}
    assert len(world.created["rollout-0"]) == 1


def test_an_engine_that_gives_no_sign_of_life_is_ended_and_replaced(tmp_path: Path) -> None:
    world = World(tmp_path, **POOL).running()
    hung = world.newest("judge-1")
    hung.hang()
    world.until(lambda: hung.killed)
    assert world.supervisor.report().restarts == {"engine/hung": 1}


def test_a_run_whose_engine_ends_too_often_ends_with_the_cause(tmp_path: Path) -> None:
    world = World(tmp_path, **POOL).running()
    for name in ("judge-0", "judge-0.2", "judge-0.3"):
        world.until(lambda: states(world) == ["serving", "serving"])
        world.newest(name).die()
        world.look()
    world.until(lambda: world.supervisor.cause)
    assert "judge-0 ended 3 times in 3600 s" in str(world.supervisor.cause)


def test_a_model_that_does_not_load_ends_the_run_at_the_first_engine(tmp_path: Path) -> None:
    world = World(tmp_path, **POOL)
    world.engine_methods["start"] = EngineError("no such architecture")
    world.until(lambda: world.supervisor.cause)
    assert world.supervisor.cause == "judge-0 ended: EngineError: no such architecture"
    world.look(5)
    assert [name for name, *_ in world.spawned if name.startswith("judge")] == ["judge-0", "judge-1"]


def test_the_gateway_is_created_for_a_run_that_asks_an_endpoint_and_its_account_is_reported(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, asks_endpoint=True).running()
    world.look(3)
    assert world.supervisor.report().endpoints == (ACCOUNT_OF_ENDPOINT,)
    world.supervisor.end()
    assert world.newest("gateway").killed


def test_a_gateway_that_dies_or_hangs_is_replaced_and_the_last_account_stays(tmp_path: Path) -> None:
    world = World(tmp_path, asks_endpoint=True).running()
    world.look(3)
    world.newest("gateway").die()
    world.until(lambda: len(world.created["gateway"]) == 2)
    assert world.supervisor.report().endpoints == (ACCOUNT_OF_ENDPOINT,)
    world.until(lambda: len(world.events()) == 2)
    world.newest("gateway").hang()
    world.until(lambda: len(world.created["gateway"]) == 3)
    assert world.events()[:3] == [
        ("gateway", "died", "died"),
        ("gateway", "recovered", ""),
        ("gateway", "died", "hung"),
    ]


def test_a_gateway_that_does_not_start_in_its_time_is_replaced(tmp_path: Path) -> None:
    world = World(tmp_path, asks_endpoint=True)
    world.gateway_methods["start"] = ...
    world.until(lambda: len(world.created["gateway"]) == 2)
    assert ("gateway", "died", "hung") in world.events()


def test_an_endpoint_that_is_away_when_the_gateway_is_replaced_is_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path, asks_endpoint=True).running()
    refusal = UserError([Mistake("endpoint", None, "does not answer", "start the server")])
    world.gateway_methods["start"] = RayTaskError("start", "", refusal).as_instanceof_cause()
    world.newest("gateway").die()
    world.until(lambda: len(world.created["gateway"]) == 2)
    world.gateway_methods["start"] = None
    world.until(lambda: ("gateway", "recovered", "") in world.events())
    assert [cause for _, what, cause in world.events() if what == "died"] == ["died", "failed"]


def test_a_journal_that_is_damaged_refuses_the_run(tmp_path: Path) -> None:
    world = World(tmp_path, asks_endpoint=True)
    refusal = UserError([Mistake("answers.sqlite", None, "is damaged", "restore it from a copy")])
    world.gateway_methods["start"] = RayTaskError("start", "", refusal).as_instanceof_cause()
    with pytest.raises(UserError, match="answers.sqlite: is damaged"):
        world.look(10)
