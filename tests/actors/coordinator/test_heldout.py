"""Held-out evaluation from the coordinator's side, against a ledger that answers as it is told."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dynalign.actors.coordinator.heldout import HeldoutEvaluation
from dynalign.actors.ledger.ledger_client import LedgerClient
from dynalign.configs.schema import RunSettings
from dynalign.rollout.ledger.evaluation_leases import EvaluationItem, EvaluationKey, EvaluationResult
from dynalign.rollout.prompts import Prompt, PromptSet
from dynalign.run_folder.heldout import HeldoutItem, oldest_version
from dynalign.run_folder.metrics import MetricsLog, read_heldout

PROMPTS = PromptSet((), tuple(Prompt(f"h{number}", "Why?", "d", "heldout") for number in range(2)))


def settings(waits: bool, **convergence: float) -> RunSettings:
    heldout = {"prompts": 2, "every_steps": 4, "waits": waits}
    run = {"name": "r", "model": "m", "steps": 20, "heldout": heldout}
    return RunSettings.model_validate(run | ({"convergence": convergence} if convergence else {}))


class Ledger(LedgerClient):
    """Knows one evaluation, and answers all of it with `score` once `there`; `versions` of the answers."""

    def __init__(self) -> None:
        self.there = False
        self.score = 2.0
        self.versions = (0, 0)
        self.evaluation: int | None = None
        self.asked: list[tuple[int, float]] = []

    async def ask(self, method: str, *arguments: Any, wait_s: float = 0.0) -> Any:
        evaluation: int = arguments[0]
        items: Sequence[EvaluationItem] = arguments[1]
        assert method == "evaluate"
        self.asked.append((evaluation, wait_s))
        self.evaluation = evaluation
        if wait_s <= 0.0 and not self.there:
            return None
        versions = (evaluation, evaluation) if wait_s > 0.0 else self.versions
        return tuple(
            EvaluationResult(EvaluationKey(evaluation, i, 1, 1), self.score, 3, "So.", False, 9, *versions)
            for i in range(len(items))
        )


class World:
    """A run folder, and one coordinator's evaluations after another."""

    def __init__(self, folder: Path, run: RunSettings, lineage: int = 1) -> None:
        self.folder = folder
        self.run = run
        self.ledger = Ledger()
        self.begin(lineage)

    def begin(self, lineage: int = 1) -> None:
        self.log = MetricsLog(self.folder, False, lineage)
        known = read_heldout(self.folder)
        self.heldout = HeldoutEvaluation(self.run, PROMPTS, lineage, self.ledger, known)

    def step(self, step: int, there: bool = False, versions: tuple[int, int] = (0, 0)) -> list[HeldoutItem]:
        """What a step's row has, as the monitor asks for it."""
        self.ledger.there = there
        self.ledger.versions = versions
        self.ledger.asked.clear()
        items = asyncio.run(self.heldout.look(step, self.ledger.evaluation))
        if self.heldout.due(step):
            items = asyncio.run(self.heldout.ask(step))
        self.log.write_heldout(items)
        self.log.write({"step": step})
        return items


def test_where_training_waits_every_evaluation_is_of_one_version_and_nothing_is_asked_between(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, settings(waits=True))
    evaluated = {step: world.step(step) for step in range(21)}
    assert [step for step, items in evaluated.items() if items] == [0, 4, 8, 12, 16, 20]
    assert all(
        (item.version_min, item.version_max) == (s, s) for s, items in evaluated.items() for item in items
    )


def test_beside_the_groups_only_the_first_and_the_last_evaluation_are_waited_for(tmp_path: Path) -> None:
    world = World(tmp_path, settings(waits=False))
    waited = []
    for step in range(21):
        world.step(step)
        waited += [asked for asked in world.ledger.asked if asked[1] > 0.0]
    assert waited == [(0, world.run.deadlines.batch_s), (20, world.run.deadlines.batch_s)]


def test_a_figure_is_that_of_the_step_after_which_it_was_complete_and_says_of_which_versions(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, settings(waits=False))
    for step in (0, 1, 2, 3):
        world.step(step)
    assert world.step(4) == []
    assert world.ledger.asked == [(4, 0.0)]
    assert world.step(5) == []
    items = world.step(6, there=True, versions=(4, 6))
    assert [(item.step, item.version_min, item.version_max) for item in items] == [(6, 4, 6)] * 4
    assert oldest_version(read_heldout(tmp_path)[-4:]) == 4
    assert world.step(7, there=True) == []
    assert world.ledger.asked == []
    # The next one may begin in the step in which one ends.
    world.step(8)
    assert world.step(12, there=True, versions=(8, 12)) != []
    assert world.ledger.asked == [(8, 0.0), (12, 0.0)]


def test_an_evaluation_that_is_late_goes_on_and_the_one_that_is_due_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, settings(waits=False))
    for step in (0, *range(4, 10)):
        assert (world.step(step) == []) == (step > 0)
        assert world.ledger.evaluation == (4 if step else 0)
    assert caplog.messages == [
        "the held-out evaluation that began with step 4 is not complete after step 8, so the next one begins "
        "later: set heldout.every_steps higher, heldout.prompts lower, or heldout.waits=true"
    ]
    assert world.step(10, there=True, versions=(4, 9)) != []
    world.step(11)
    assert world.ledger.asked == []
    world.step(12)
    assert world.ledger.asked == [(12, 0.0)]


def test_a_coordinator_that_takes_over_goes_on_with_what_is_open_and_writes_the_row_that_is_missing(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, settings(waits=False))
    for step in (0, 4, 5):
        world.step(step)
    world.begin()
    world.step(6)
    assert world.ledger.asked == [(4, 0.0)]
    world.ledger.there = True
    world.ledger.versions = (4, 7)
    items = asyncio.run(world.heldout.look(7, 4))
    world.log.write_heldout(items)  # it dies before it writes the row
    world.log.close()
    world.begin()
    assert world.step(7) == items
    assert world.ledger.asked == []
    # A ledger that has begun anew as well knows of nothing: what is due begins with the policy of now.
    world.step(8)
    world.begin()
    world.ledger.evaluation = None
    world.step(9)
    assert world.ledger.asked == [(9, 0.0)]


def test_a_figure_whose_writer_died_over_it_is_written_again(tmp_path: Path) -> None:
    world = World(tmp_path, settings(waits=False))
    for step in (0, 4):
        world.step(step)
    world.ledger.there = True
    world.ledger.versions = (4, 5)
    items = asyncio.run(world.heldout.look(5, 4))
    world.log.write_heldout(items[:2])
    world.log.close()
    world.begin()
    assert world.step(5, there=True, versions=(4, 5)) == items
    assert read_heldout(tmp_path)[-4:] == items


def test_a_run_stops_by_a_figure_of_its_last_policy_alone(tmp_path: Path) -> None:
    world = World(tmp_path, settings(waits=False, window=2, min_delta=0.5))
    for step, score, there in ((0, 2.0, False), (4, 2.0, False), (5, 2.0, True), (8, 2.0, False)):
        world.ledger.score = score
        world.step(step, there, (4, 5))
        assert not world.heldout.converged()
    world.ledger.there = True
    world.ledger.versions = (8, 9)
    asyncio.run(world.heldout.look(9, 8))
    assert not world.heldout.converged(), "where the wait is ended, the run goes on when it is resumed"
    world.ledger.asked.clear()
    world.step(9, there=True, versions=(8, 9))
    # By answers of versions 8 and 9 it would stop: the policy of step 9 is asked, and waited for.
    assert world.ledger.asked == [(9, world.run.deadlines.batch_s)]
    assert world.heldout.converged()
    assert {item.version_min for item in read_heldout(tmp_path) if item.step == 9} == {9}


def test_without_held_out_prompts_the_ledger_is_asked_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, settings(waits=False).model_copy(update={"heldout": settings(True).heldout}))
    world.heldout = HeldoutEvaluation(world.run, PromptSet((), ()), 1, world.ledger, [])
    assert [world.step(step) for step in (0, 4, 20)] == [[], [], []]
    assert world.ledger.asked == []
