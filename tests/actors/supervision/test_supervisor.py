"""One test per row of the supervision's table, with fake actors and a clock: what dies, and what follows."""

import errno
from dataclasses import replace
from pathlib import Path

import pytest
from ray import exceptions

from dynalign.configs.errors import EngineError, LearnerLost, RecordError, RunFailed, WeightsError
from dynalign.rollout.ledger.values import Break
from dynalign.run_folder.events import read_events
from dynalign.run_folder.run_status import PoolStatus, RunStatus
from tests.worlds.supervised_run import WORKER_STATS, FakeActor, World

MEMORY = exceptions.OutOfMemoryError(
    "1 worker(s) were killed due to the node running low on memory.\n"
    "Memory on the node (IP: 10.0.0.7, ID: 0a1b) was 61.2GB used / 64.0GB limit (0.956)\nAdvice follows."
)
GONE: list[BaseException] = [
    exceptions.ActorDiedError(),
    exceptions.ActorUnavailableError("no route to host", None),
    exceptions.NodeDiedError("its node is dead"),
    exceptions.WorkerCrashedError(),
    exceptions.LocalRayletDiedError(),
    exceptions.OwnerDiedError("00", None, ""),
    exceptions.ObjectLostError("00", None, ""),
    MEMORY,
]
"""Ways in which Ray says that an actor, its node, or the owner of its answer is gone."""


def name_of(error: BaseException) -> str:
    return type(error).__name__


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path).running()


def test_a_run_that_nothing_happens_to_ends_as_the_coordinator_says(world: World) -> None:
    world.finish()
    world.look()
    assert world.supervisor.ending is not None
    assert world.supervisor.ending.state == "finished"
    assert world.events() == []


# -- a rollout worker


@pytest.mark.parametrize("error", GONE, ids=name_of)
def test_a_worker_that_dies_is_replaced_and_its_leases_return(world: World, error: BaseException) -> None:
    world.newest("rollout-1").die(error)
    world.until(lambda: world.created["rollout-1.2"])
    world.look(3)
    ledger, coordinator = world.newest("ledger"), world.newest("coordinator")
    assert ledger.worker_left.asked == [("rollout-1", True)]
    assert ("rollout-1",) in coordinator.remove_worker.asked
    assert coordinator.add_worker.asked[-1] == ("rollout-1.2", world.newest("rollout-1.2"))
    cause = "memory" if error is MEMORY else "died"
    assert world.events() == [("rollout-1", "died", cause), ("rollout-1.2", "recovered", "")]
    assert world.supervisor.report().restarts == {f"worker/{cause}": 1}


def test_memory_pressure_is_named_with_the_figures_of_the_node(world: World) -> None:
    world.newest("rollout-1").die(MEMORY)
    world.look()
    (line,) = (world.folder / "events.jsonl").read_text().splitlines()
    assert "Memory on the node (IP: 10.0.0.7) was 61.2GB used / 64.0GB limit (0.956)" in line
    assert "Advice" not in line


@pytest.mark.parametrize(
    ("error", "cause"), [(EngineError("the engine died"), "failed"), (WeightsError("torn"), "weights")]
)
def test_a_worker_whose_engine_or_weight_update_fails_is_replaced(
    world: World, error: Exception, cause: str
) -> None:
    first = world.newest("rollout-0")
    first.serve.end(error)
    world.until(lambda: world.created["rollout-0.2"])
    assert first.killed
    assert world.events()[0] == ("rollout-0", "died", cause)


def test_a_worker_that_gives_no_sign_of_life_is_killed_and_replaced(world: World) -> None:
    first = world.newest("rollout-0")
    first.hang()
    world.until(lambda: world.created["rollout-0.2"])
    assert first.killed
    assert 60 < world.now_s < 75
    assert world.events()[0] == ("rollout-0", "died", "hung")


def test_a_worker_that_does_not_get_ready_in_time_is_killed_and_replaced(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.worker_methods["start"] = ...
    world.until(lambda: world.created["rollout-0.2"])
    assert 100 < world.now_s < 110
    assert world.created["rollout-0"][0].killed


def test_deaths_of_one_worker_beyond_its_budget_end_the_run_with_a_checkpoint(world: World) -> None:
    for name in ("rollout-0", "rollout-0.2", "rollout-0.3"):
        world.until(lambda name=name: world.created[name] and world.newest(name).serve.calls)  # type: ignore[misc]
        world.newest(name).die()
    world.until(lambda: world.supervisor.cause)
    assert (world.supervisor.cause or "").startswith("rollout-0 ended 3 times in 3600 s, the last time by")
    assert world.newest("coordinator").control.asked[-1] == ("stop",)
    world.finish("interrupted")
    world.look()
    assert world.supervisor.ending is not None


def test_an_error_that_would_repeat_ends_the_run_at_once_with_a_checkpoint(world: World) -> None:
    world.newest("rollout-0").serve.end(OSError(errno.ENOSPC, "No space left on device"))
    world.look()
    assert "No space left on device" in (world.supervisor.cause or "")
    assert world.newest("coordinator").control.asked == [("stop",)]
    assert not world.created["rollout-0.2"]


# -- a prompt that kills its worker


def test_what_the_ledger_withholds_as_poison_is_passed_on_and_the_run_goes_on(world: World) -> None:
    poison = Break(3, 1, 1, 0, ("rollout-0",), poison=True)
    world.newest("ledger").worker_left.outcome = [poison]
    world.newest("rollout-0").die()
    world.until(lambda: world.created["rollout-0.2"])
    assert world.poisoned == [poison]
    assert world.supervisor.cause is None


# -- the ledger


@pytest.mark.parametrize("error", GONE, ids=name_of)
def test_a_ledger_that_dies_is_replaced_from_the_newest_checkpoint(
    world: World, error: BaseException
) -> None:
    world.newest_step = 4
    first = world.newest("ledger")
    first.die(error)
    world.until(lambda: len(world.created["ledger"]) == 2)
    world.look(2)
    assert first.killed
    assert [spawned[1].step for spawned in world.spawned if spawned[0] == "ledger"] == [0, 4]
    assert world.newest("coordinator").ledger_replaced.asked == [()]
    assert [event[:2] for event in world.events()] == [("ledger", "died"), ("ledger", "recovered")]
    assert len(world.created["coordinator"]) == 1, "its callers wait for the new one"


def test_a_ledger_that_does_not_answer_is_killed_and_replaced(world: World) -> None:
    first = world.newest("ledger")
    first.hang()
    world.until(lambda: len(world.created["ledger"]) == 2)
    assert first.killed
    assert world.events()[0] == ("ledger", "died", "hung")


def test_a_ledger_that_does_not_start_in_time_is_killed_and_replaced(world: World) -> None:
    def silent(spec: object) -> FakeActor:
        return world._new("ledger", spec)

    world.ledger = silent  # type: ignore[method-assign, assignment]
    world.newest("ledger").die()
    world.until(lambda: len(world.created["ledger"]) == 3)
    assert world.created["ledger"][1].killed
    assert [event for event in world.events() if event[0] == "ledger"][1] == ("ledger", "died", "hung")
    assert 100 < world.now_s < 120


def test_what_a_ledger_raises_by_itself_ends_the_run(world: World) -> None:
    world.newest("ledger").status.outcome = RecordError("a damaged log")
    with pytest.raises(RecordError, match="a damaged log"):
        world.look(3)


def test_a_worker_that_leaves_while_the_ledger_dies_costs_nothing(world: World) -> None:
    ledger = world.newest("ledger")
    ledger.worker_left.outcome = exceptions.ActorUnavailableError("no route to host", None)
    world.newest("rollout-0").die()
    world.until(lambda: world.created["rollout-0.2"])
    assert world.supervisor.cause is None


# -- the coordinator


@pytest.mark.parametrize("error", GONE, ids=name_of)
def test_a_coordinator_that_dies_is_replaced_and_joins(world: World, error: BaseException) -> None:
    world.supervisor.ask("pause")
    world.newest("coordinator").die(error)
    world.until(lambda: len(world.created["coordinator"]) == 2)
    world.look(2)
    second = world.newest("coordinator")
    assert [spawned[2] for spawned in world.spawned if spawned[0] == "coordinator"] == [False, True]
    assert second.control.asked == [("pause",)]
    assert [asked[0] for asked in second.add_worker.asked] == ["rollout-0", "rollout-1"]
    assert [len(world.created[name]) for name in ("ledger", "learner", "rollout-0")] == [1, 2, 1]
    assert world.events()[-1][:2] == ("coordinator", "recovered")


def test_a_coordinator_that_does_not_answer_is_killed_and_replaced(world: World) -> None:
    first = world.newest("coordinator")
    first.hang()
    world.until(lambda: len(world.created["coordinator"]) == 2)
    assert first.killed
    assert world.events()[0] == ("coordinator", "died", "hung")


def test_a_coordinator_that_dies_before_the_learner_is_ready_takes_the_learner_with_it(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    world.look()
    world.newest("coordinator").die()
    world.until(lambda: len(world.created["coordinator"]) == 2)
    assert world.lineage == 2
    assert len(world.created["learner"]) == 4
    assert [event[0] for event in world.events()][0] == "learner"


def test_what_a_coordinator_raises_by_itself_ends_the_run(world: World) -> None:
    world.newest("coordinator").train.end(RunFailed("no signal"))
    with pytest.raises(RunFailed, match="no signal"):
        world.look()


# -- a learner rank


@pytest.mark.parametrize("how", ["died", "hung", "memory"])
def test_a_lost_learner_starts_again_in_a_new_lineage_and_workers_stay(world: World, how: str) -> None:
    world.newest_step = 4
    before = [world.newest(name) for name in ("coordinator", "ledger")] + world.created["learner"]
    world.newest("coordinator").train.end(LearnerLost(how, "learner rank 1 is gone"))
    world.until(lambda: len(world.created["coordinator"]) == 2)
    assert all(actor.killed for actor in before)
    specs = [spawned[1] for spawned in world.spawned if spawned[0] in ("learner", "ledger", "coordinator")]
    assert [(spec.lineage, spec.step) for spec in specs[4:]] == [(2, 4)] * 4
    assert len(world.created["rollout-0"]) == 1
    assert world.events()[0] == ("learner", "died", how)
    world.look(3)
    assert world.events()[-1] == ("learner", "recovered", "")


def test_the_second_restart_waits_and_one_beyond_the_budget_ends_the_run(world: World) -> None:
    for count in (1, 2):
        world.newest("coordinator").train.end(LearnerLost("died", "a rank is gone"))
        world.until(lambda count=count: len(world.created["coordinator"]) == 1 + count)  # type: ignore[misc]
        world.look(3)
    world.newest("coordinator").train.end(LearnerLost("died", "a rank is gone"))
    with pytest.raises(
        RunFailed, match="the learner ended 3 times in 3600 s, the last time by a rank is gone"
    ):
        world.look()


def test_a_learner_that_dies_while_the_run_is_failing_ends_it_with_the_first_cause(world: World) -> None:
    world.supervisor.fail("the first cause")
    world.newest("coordinator").train.end(LearnerLost("died", "a rank is gone"))
    with pytest.raises(RunFailed, match="the first cause"):
        world.look()


# -- a node, the driver, and the end


def test_a_node_that_dies_takes_all_on_it_and_each_is_replaced(world: World) -> None:
    node = exceptions.NodeDiedError("its node is dead")
    world.newest("rollout-0").die(node)
    world.newest("rollout-1").die(node)
    world.newest("coordinator").train.end(LearnerLost("died", "learner rank 1 is gone"))
    world.until(lambda: world.created["rollout-0.2"] and world.created["rollout-1.2"])
    world.until(lambda: ("learner", "recovered", "") in world.events())
    assert world.supervisor.cause is None


def test_the_end_kills_every_actor(world: World) -> None:
    world.supervisor.end()
    assert all(actor.killed for actors in world.created.values() for actor in actors)


def test_a_stop_that_takes_longer_than_its_deadline_ends_the_run(world: World) -> None:
    world.supervisor.hurry()
    with pytest.raises(RunFailed, match="did not end within deadlines.stop_s=30"):
        world.look(32)


@pytest.mark.parametrize("asked", [["pause"], ["pause", "resume"], ["pause", "pause", "stop"]])
def test_a_new_coordinator_is_asked_for_what_still_holds(world: World, asked: list[str]) -> None:
    for what in asked:
        world.supervisor.ask(what)
    world.newest("coordinator").die()
    world.until(lambda: len(world.created["coordinator"]) == 2)
    wanted = {"pause": ["pause"], "resume": ["resume"], "stop": ["pause", "stop"]}[asked[-1]]
    assert [call[0] for call in world.newest("coordinator").control.asked] == wanted


def test_a_reward_function_that_fails_is_told_once_with_its_cause(world: World) -> None:
    cause = "judge.function m:f raised ZeroDivisionError"
    failing = replace(WORKER_STATS, judge_failures_total=1, judge_failure=cause)
    for name in ("rollout-0", "rollout-1"):
        world.newest(name).methods["stats"].outcome = failing
    world.look(5)
    told = [(event.actor, event.detail) for event in read_events(world.folder) if event.what == "judge fails"]
    assert told == [("rollout-0", cause)]
    assert [worker.judge_failures_total for worker in world.supervisor.report().workers] == [1, 1]


def test_the_coordinator_s_decision_on_the_number_of_workers_is_carried_out(world: World) -> None:
    decided = RunStatus("run", "running", pool=PoolStatus(1, 1, "workers idle"))
    world.newest("coordinator").look.outcome = decided
    world.until(lambda: world.newest("rollout-1").stop.asked)
    report = world.supervisor.report()
    assert (report.workers_wanted, report.why_wanted, report.settling) == (1, "workers idle", True)
