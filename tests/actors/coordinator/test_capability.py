"""The capability probe from the coordinator's side, against a ledger that answers as it is told."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dynalign.actors.coordinator.capability import CapabilityProbe
from dynalign.actors.ledger.ledger_client import LedgerClient
from dynalign.configs.schema import RunSettings
from dynalign.endpoint.base import Answer, Answers, Question
from dynalign.rollout.ledger.probe_leases import ProbeAnswers, ProbeKey, ProbeResult
from dynalign.run_folder.capability import scores_of_items
from dynalign.run_folder.metrics import MetricsLog, read_capability
from tests.worlds.history_actors import HistoryItems

RUN = RunSettings.model_validate(
    {"name": "r", "model": "m", "steps": 9, "capability": {"items": 40, "every_steps": 4}}
)
SHARED = RunSettings.model_validate(
    RUN.model_dump() | {"placement": {"mode": "shared"}, "algorithm": {"max_staleness": 0}}
)


class Ledger(LedgerClient):
    """Answers `there` questions of a probe, in their order, each with `text`."""

    def __init__(self) -> None:
        self.there = 0
        self.text = "0"
        self.asked: list[tuple[int, float]] = []

    async def ask(self, method: str, *arguments: Any, wait_s: float = 0.0) -> Any:
        probe: int = arguments[0]
        questions: Sequence[Question] = arguments[1]
        assert method == "probe"
        self.asked.append((probe, wait_s))
        answers = Answers((Answer(self.text, "stop"),), "policy", 5, 1)
        results = tuple(
            ProbeResult(ProbeKey(probe, i, 1, 1), answers, probe, probe) for i in range(self.there)
        )
        return ProbeAnswers(probe, results, len(questions) - self.there)


class World:
    """A run folder, and one coordinator's probe after another."""

    def __init__(self, folder: Path, lineage: int = 1, run: RunSettings = RUN) -> None:
        self.folder = folder
        self.run = run
        self.ledger = Ledger()
        self.begin(lineage)

    def begin(self, lineage: int = 1, step: int = 0) -> None:
        self.log = MetricsLog(self.folder, False, lineage)
        points = read_capability(self.folder)
        self.probe = CapabilityProbe(self.run, lineage, step, self.ledger, self.log, HistoryItems(40), points)

    def initial(self) -> None:
        self.ledger.there = 40
        assert self.probe.lacks_initial(0)
        asyncio.run(self.probe.ask(0))
        assert not self.probe.lacks_initial(0)

    def look(self, step: int, there: int, text: str = "1") -> dict[str, float]:
        """The columns of the step's row."""
        self.ledger.there = there
        self.ledger.text = text
        self.ledger.asked.clear()
        columns = dict(asyncio.run(self.probe.look(step)))
        if step:
            self.log.write({"step": step, **columns})
        return columns


def test_a_point_is_opened_looked_at_and_closed_with_its_last_answer(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.initial()
    assert world.ledger.asked == [(0, RUN.deadlines.batch_s)]
    assert world.look(0, 40) == {}
    for step in (1, 2, 3):
        assert world.look(step, 0) == {}
        assert world.ledger.asked == []
    assert world.look(4, 0) == {}
    assert world.look(5, 39) == {}
    assert world.ledger.asked == [(4, 0.0)]
    assert world.look(6, 40) == {"capability_change": 1.0, "capability_change_se": 1 / 40}
    assert world.look(7, 40) == {}
    assert world.ledger.asked == []
    item = read_capability(tmp_path)[4][0]
    assert (item.step, item.closed_step, item.of_items, item.answer, item.tokens) == (4, 6, 40, "1", 6)


def test_a_point_that_is_late_is_closed_with_what_is_there_before_the_next_one_begins(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.initial()
    for step in (4, 5, 6, 7):
        assert world.look(step, 0) == {}
    assert world.look(8, 30) == {"capability_change": 1.0, "capability_change_se": 1 / 30}
    assert world.ledger.asked == [(4, 0.0), (8, 0.0)]
    # The last step closes what is open, and opens nothing.
    assert world.look(9, 31) == {"capability_change": 1.0, "capability_change_se": 1 / 31}
    assert [len(scores_of_items(point)) for point in read_capability(tmp_path).values()] == [40, 30, 31]


def test_too_few_answers_make_no_change_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path)
    world.initial()
    world.look(4, 0)
    assert world.look(8, 29) == {}
    assert caplog.messages == [
        "the capability probe of step 4 has 29 answers; to compare, 30 of the same items are needed: "
        "set capability.every_steps higher"
    ]


def test_a_coordinator_that_takes_over_goes_on_with_the_point_and_writes_the_row_that_is_missing(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    world.initial()
    world.look(4, 0)
    world.begin()
    assert not world.probe.lacks_initial(0)
    world.ledger.there = 40
    change = asyncio.run(world.probe.look(5))  # it dies before it writes the row
    world.begin()
    assert world.look(5, 0) == change
    assert world.ledger.asked == []


def test_a_point_that_was_rolled_back_is_asked_again_and_the_initial_one_is_not(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.initial()
    world.look(4, 0)
    assert world.look(6, 40, "1")["capability_change"] == 1.0
    world.begin(lineage=2)
    assert not world.probe.lacks_initial(0)
    assert world.look(4, 0) == {}
    assert world.look(6, 40, "2") == {"capability_change": 0.0, "capability_change_se": 1 / 40}
    assert {item.answer for item in read_capability(tmp_path)[4]} == {"2"}


def test_a_point_whose_writer_died_over_it_does_not_count(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.initial()
    file = tmp_path / "capability.jsonl"
    file.write_bytes(file.read_bytes()[:-60])
    world.begin()
    assert world.probe.lacks_initial(0)
    world.initial()
    assert len(read_capability(tmp_path)[0]) == 40


def test_without_a_probe_the_ledger_is_asked_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.probe = CapabilityProbe(RUN, 1, 0, world.ledger, world.log, None, {})
    assert not world.probe.lacks_initial(0)
    assert world.look(4, 40) == {}
    assert world.ledger.asked == []


def test_where_engines_and_learner_take_turns_training_waits_for_each_point(tmp_path: Path) -> None:
    world = World(tmp_path, run=SHARED)
    world.initial()
    waited = []
    for step in range(1, 10):
        if world.probe.waited_for(step):
            world.ledger.there = 40
            world.ledger.text = "1"
            asyncio.run(world.probe.ask(step))
            waited.append(step)
        assert bool(world.look(step, 0)) == (step in waited)
        assert world.ledger.asked == [], "nothing is asked beside the groups"
    assert waited == [4, 8]
    closed = {point: items[0].closed_step for point, items in read_capability(tmp_path).items()}
    assert closed == {0: 0, 4: 4, 8: 8}
    world.begin(lineage=2)
    assert not world.probe.waited_for(0)
    assert world.probe.waited_for(4), "what was rolled back is asked again"


def test_where_they_take_turns_a_point_that_was_rolled_back_is_in_no_row_of_the_next_lineage(
    tmp_path: Path,
) -> None:
    """A stop may end the wait for its answers: the row of the step has none then (random history 5138)."""
    world = World(tmp_path, run=SHARED)
    world.initial()
    asyncio.run(world.probe.ask(4))
    assert world.look(4, 40)["capability_change"] == 0.0
    world.begin(lineage=2)
    assert world.probe.waited_for(4)
    assert world.look(4, 40) == {}


def test_a_point_of_a_lineage_that_was_left_behind_is_closed_again_by_the_next_one(tmp_path: Path) -> None:
    """Whatever step it had been closed with (random history 5579)."""
    world = World(tmp_path)
    world.initial()
    world.look(4, 0)
    assert world.look(5, 40)["capability_change"] == 1.0
    world.begin(lineage=2, step=4)
    assert world.look(5, 0) == {}
    assert world.look(6, 40)["capability_change"] == 1.0
    assert {items[0].lineage for point, items in read_capability(tmp_path).items() if point} == {2}
