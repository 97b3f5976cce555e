"""A step whose groups have no signal: what the run says, how often it draws again, and how that ends."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest

from dynalign.actors.coordinator.batch_source import MOST_REFILLS, BatchSource
from dynalign.actors.coordinator.loop_controls import LoopControls, LoopProgress, StopRequested
from dynalign.actors.ledger.ledger_status import LedgerStatus
from dynalign.actors.ledger.protocol import LedgerCalls
from dynalign.configs.errors import NoSignal, RunFailed
from dynalign.configs.schema import RunSettings
from tests.worlds.supervised_run import STATUS


class Ledger:
    """Has no signal in the first `times` draws. present: what it has of the batch then."""

    scores: tuple[float, ...] = (3.0, 3.0)

    def __init__(self, times: int, present: object = None, reasons: tuple[tuple[str, int], ...] = ()) -> None:
        self.times = times
        self.reasons = reasons
        self.present = present
        self.refills = 0

    async def take(self, step: int, deadline_s: float) -> object:
        await asyncio.sleep(0)
        if self.refills < self.times:
            raise NoSignal(step, 0, 4, 16, self.reasons)
        return "batch"

    async def take_present(self, step: int, deadline_s: float) -> object:
        return self.present

    async def refill(self) -> None:
        self.refills += 1

    async def status(self) -> LedgerStatus:
        return replace(
            STATUS,
            withheld_by_reason={"low_signal": 16 * (self.refills + 1), "poison": 1},
            withheld_scores=self.scores,
        )


class Case:
    def __init__(self, action: str, ledger: Ledger) -> None:
        settings = {"name": "a", "model": "m", "algorithm": {"on_no_signal": action}}
        self.controls = LoopControls()
        self.now = LoopProgress("running", "")
        run = RunSettings.model_validate(settings)
        self.source = BatchSource(run, cast(LedgerCalls, ledger), self.controls, self.now)

    def take(self, then: Callable[[], object] = lambda: None) -> object:
        """then: is done again and again while the batch is waited for."""

        async def case() -> object:
            taking = asyncio.ensure_future(self.source.take(3))
            while not taking.done():
                await asyncio.sleep(0)
                then()
            return taking.result()

        return asyncio.run(asyncio.wait_for(case(), 20))


def test_a_step_that_gets_its_signal_with_a_refill_goes_on_and_takes_its_warning_back() -> None:
    ledger = Ledger(2)
    case = Case("warn", ledger)
    assert case.take() == "batch"
    assert ledger.refills == 2
    assert case.now.notice == ""


def test_a_collapsed_reward_is_warned_of_bounded_and_ends_the_run_with_its_cause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ledger = Ledger(10_000)
    with pytest.raises(
        RunFailed, match=f"step 3: .* after {MOST_REFILLS} refills; .*low_signal 176"
    ) as failed:
        Case("warn", ledger).take()
    assert ledger.refills == MOST_REFILLS
    assert "change the rubric, the judge or the prompts" in str(failed.value)
    assert "their candidates scored 3.00 points, all of them" in str(failed.value)
    assert len([line for line in caplog.messages if "step 3" in line]) == MOST_REFILLS + 1


@pytest.mark.parametrize(
    ("scores", "said"),
    [((2.9, 3.1), "refills; their candidates scored 2.90 to 3.10 points (with"), ((), "refills (with")],
)
def test_the_warning_says_of_what_score_the_groups_are(
    caplog: pytest.LogCaptureFixture, scores: tuple[float, ...], said: str
) -> None:
    ledger = Ledger(1)
    ledger.scores = scores
    assert Case("warn", ledger).take() == "batch"
    (line,) = caplog.messages
    assert line.startswith("step 3: 16 groups without signal were withheld, 0 of 4 groups are there, after 0")
    assert said in line


def test_a_judge_that_stays_away_ends_the_run_with_another_remedy() -> None:
    ledger = Ledger(10_000, reasons=(("judge_unreachable", 15), ("low_signal", 1)))
    with pytest.raises(RunFailed, match="15 judge_unreachable, 1 low_signal") as failed:
        Case("warn", ledger).take()
    assert "why the judge cannot be reached" in str(failed.value)
    assert "change the rubric" not in str(failed.value)


def test_what_is_there_is_trained_where_that_is_enough() -> None:
    ledger = Ledger(10_000, present="two groups")
    assert Case("warn", ledger).take() == "two groups"
    assert ledger.refills == 0


def test_a_run_that_pauses_says_why_and_draws_again_each_time_it_is_resumed() -> None:
    ledger = Ledger(600)
    case = Case("pause", ledger)
    phases: set[str] = set()

    def resume() -> None:
        if case.controls.paused:
            phases.add(case.now.phase)
            case.controls.resume()

    assert case.take(resume) == "batch"
    assert ledger.refills == 600, "as often as somebody wants it, however deep a stack may be"
    assert all(phase.startswith("paused: step 3:") for phase in phases)


def test_a_paused_run_can_be_stopped() -> None:
    case = Case("pause", Ledger(1))
    with pytest.raises(StopRequested):
        case.take(lambda: case.controls.stop() if case.controls.paused else None)


def test_a_run_that_is_to_stop_ends_at_once() -> None:
    ledger = Ledger(1)
    with pytest.raises(RunFailed, match="algorithm.on_no_signal=stop"):
        Case("stop", ledger).take()
    assert ledger.refills == 0
