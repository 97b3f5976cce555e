"""An attempt at a run from start to end, with fake actors: signals, requests, poison, and failures at the
end."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray import exceptions

from dynalign.actors.coordinator.protocol import Ending
from dynalign.actors.remote import Calls
from dynalign.actors.supervision.spawner import Spawner
from dynalign.configs.errors import LearnerLost, Mistake, RunFailed, UserError
from dynalign.configs.schema import RunSettings
from dynalign.launch.attempt import Attempt
from dynalign.launch.heartbeat import Heartbeat
from dynalign.launch.interrupts import Interrupts
from dynalign.launch.preflight import Prepared
from dynalign.rollout.ledger.evaluation_leases import PoisonedItem
from dynalign.rollout.ledger.values import Break
from dynalign.rollout.prompts import Prompt, PromptSet
from dynalign.run_folder import layout, owner, requests
from dynalign.run_folder.requests import Request
from dynalign.run_folder.run_status import AlarmStatus
from tests.worlds.supervised_run import ACCOUNT, STATUS, World

PROMPTS = PromptSet((Prompt("a", "boom", "d", "train"),), (Prompt("h", "bang", "d", "heldout"),))


class FakeSession:
    """A world as the cluster. lacking: what it has no room for, told each time that somebody waits."""

    def __init__(
        self, world: World, starts: bool = True, lacking: Callable[[], object] | None = None
    ) -> None:
        self.calls: Calls = world
        self.world = world
        self.starts = starts
        self.lacking = lacking
        self.closed = False

    def connect(self, run: RunSettings) -> bool:
        return self.starts

    def wait_for_capacity(self, plan: object, deadline_s: float, waiting: Callable[[Mistake], None]) -> Any:
        while self.lacking is not None:
            self.lacking()
            waiting(Mistake("nodes", 1, "have no GPU", "add one"))
        return SimpleNamespace(nodes=[1])

    def spawner(self, ready: Prepared) -> Spawner:
        return self.world

    def close(self) -> None:
        self.closed = True


class Case:
    """One attempt in its world."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.world = World(folder, **settings)
        self.interrupts = Interrupts()
        self.session = FakeSession(self.world)

    def run(self, *script: Callable[[], object]) -> int:
        """The exit code. script: what happens once all actors serve, one thing each second."""
        self.world.script = [lambda: None] * 6 + list(script)
        mine = owner.acquire(self.folder, 0.0)
        ready = SimpleNamespace(prompts=PROMPTS, checkpoint=None, content={}, on=lambda cluster: ready)
        ready.plan = SimpleNamespace(cluster=SimpleNamespace(nodes=[1]))
        with Heartbeat(mine) as heart:
            attempt = Attempt(
                self.world.spec.run,
                self.folder,
                mine.lineage,
                cast(Prepared, ready),
                self.interrupts,
                heart,
                None,
                self.session,
                self.world.clock,
            )
            return attempt.run()

    def lose_coordinator(self, error: BaseException) -> Callable[[], object]:
        return lambda: self.world.newest("coordinator").train.end(error)

    def stopped(self) -> bool:
        return ("stop",) in self.world.newest("coordinator").control.asked

    def everything_ended(self) -> bool:
        actors = [actor for actors in self.world.created.values() for actor in actors]
        return self.session.closed and all(actor.killed for actor in actors)


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    made = Case(tmp_path)
    yield made
    made.interrupts.restore()


def send(number: signal.Signals) -> Callable[[], object]:
    return lambda: os.kill(os.getpid(), number)


def test_a_run_that_finishes_returns_0_and_leaves_no_actor(case: Case) -> None:
    assert case.run(case.world.finish) == 0
    assert case.everything_ended()
    assert json.loads((case.folder / layout.STATUS).read_text())["state"] == "running"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_stops_the_run_with_a_checkpoint_and_returns_130(
    case: Case, number: signal.Signals
) -> None:
    def finish() -> None:
        assert case.stopped()
        case.world.finish("interrupted")

    assert case.run(send(number), lambda: None, finish) == 130
    assert case.everything_ended()


def test_a_second_signal_ends_the_run_at_once(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert case.run(send(signal.SIGTERM), send(signal.SIGTERM)) == 1
    assert case.everything_ended()
    assert "interrupted twice: ended at once, without a new checkpoint" in capsys.readouterr().out


def test_a_stop_that_takes_too_long_ends_the_run(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert case.run(send(signal.SIGINT)) == 1
    assert "did not end within deadlines.stop_s=30" in capsys.readouterr().out


def test_signals_are_left_to_whoever_had_them_and_an_ignored_one_stays_ignored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupts = Interrupts()
    os.kill(os.getpid(), signal.SIGHUP)
    assert interrupts.count == 0
    interrupts.restore()
    assert signal.getsignal(signal.SIGTERM) is before
    signal.signal(signal.SIGHUP, hangup)


def test_requests_in_the_run_folder_are_carried_out(case: Case) -> None:
    def leave(request: Request) -> Callable[[], object]:
        return lambda: requests.leave(case.folder, request)

    pause, scale = leave(Request("pause")), leave(Request("scale", 1))
    assert case.run(pause, scale, lambda: None, lambda: None, case.world.finish) == 0
    assert case.world.newest("coordinator").control.asked == [("pause",)]
    assert case.world.newest("rollout-1").stop.asked or case.world.newest("rollout-1").killed


@pytest.mark.parametrize(
    ("withheld", "prompt"),
    [
        (Break(3, 1, 1, 0, ("rollout-0", "rollout-0.2"), poison=True), "boom"),
        (PoisonedItem(0, ("rollout-0",)), "bang"),
    ],
)
def test_a_prompt_that_is_withheld_as_poison_is_written_down_and_the_run_goes_on(
    case: Case, withheld: Any, prompt: str
) -> None:
    def die() -> None:
        case.world.newest("ledger").worker_left.outcome = [withheld]
        case.world.newest("rollout-0").die()

    assert case.run(die, lambda: None, case.world.finish) == 0
    (line,) = (case.folder / layout.POISON).read_text().splitlines()
    written = json.loads(line)
    assert (written["prompt"], written["workers"]) == (prompt, list(withheld.workers))


def test_files_that_only_inform_end_no_run_when_they_cannot_be_written(case: Case) -> None:
    def block() -> None:
        (case.folder / layout.STATUS).unlink()
        for name in (layout.STATUS, layout.POISON, layout.SUMMARY, layout.REPORT):
            (case.folder / name).mkdir()
        case.world.newest("ledger").worker_left.outcome = [PoisonedItem(0, ("rollout-0",))]
        case.world.newest("rollout-0").die()

    assert case.run(block, lambda: None, case.world.finish) == 0


@pytest.mark.parametrize(
    "error",
    [
        RunFailed("no signal"),
        exceptions.RaySystemError("the cluster"),
        OSError(28, "No space left on device"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_ends_a_run_is_its_cause_and_the_exit_code_is_1(
    case: Case, error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    assert case.run(case.lose_coordinator(error)) == 1
    assert case.everything_ended()
    assert type(error).__name__ in (out := capsys.readouterr().out)
    assert str(error.args[-1]).split()[0] in out


def test_a_failed_run_s_account_is_the_ledger_s_at_its_end(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        case.world.newest("ledger").status.outcome = replace(STATUS, issued=38, trained=36)
        case.world.newest("coordinator").train.end(RunFailed("no signal"))

    assert case.run(fail) == 1
    assert "issued 38 = pending 0 + leased 0 + scored 1 + trained 36 + withheld 1" in capsys.readouterr().out


def test_a_failed_run_whose_ledger_is_silent_shows_the_last_account(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        case.world.newest("ledger").hang()
        case.world.newest("coordinator").train.end(RunFailed("no signal"))

    assert case.run(fail) == 1
    assert "issued 4 = pending 0 + leased 0 + scored 1 + trained 2 + withheld 1" in capsys.readouterr().out


def test_a_learner_that_is_lost_begins_a_new_lineage_on_disk(case: Case) -> None:
    lost = case.lose_coordinator(LearnerLost("died", "learner rank 0 is gone"))
    assert case.run(lost, lambda: None, lambda: None, case.world.finish) == 0
    stamp = owner.read(case.folder)
    assert stamp is not None
    assert stamp.lineage == 2


def test_a_mistake_that_only_an_actor_sees_is_raised_before_anything_is_trained(tmp_path: Path) -> None:
    case = Case(tmp_path)
    taken = UserError([Mistake("metrics.port", 9000, "is taken on 127.0.0.1", "choose another")])

    case.world.state = "starting"
    with pytest.raises(UserError, match="is taken"):
        case.run(case.lose_coordinator(taken))
    case.interrupts.restore()


def test_an_interrupt_while_the_cluster_has_no_room_ends_the_wait(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    case.session = FakeSession(case.world, starts=False, lacking=send(signal.SIGTERM))
    assert case.run() == 1
    assert "interrupted while it waited for room in the cluster" in capsys.readouterr().out
    assert case.session.closed


def test_a_run_that_another_driver_took_over_ends(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    def take_over() -> None:
        owner.acquire(case.folder, 1e9)

    lost = case.lose_coordinator(LearnerLost("died", "learner rank 0 is gone"))
    assert case.run(take_over, lost) == 1
    assert "lineage 1 was replaced by lineage 2" in capsys.readouterr().out


def test_a_run_that_an_alarm_stops_says_so_and_returns_1(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    alarm = AlarmStatus("injection", 2, 3, "stop", "share of answers 0.30 since step 2: read the answers")

    def stop() -> None:
        cause = "alarm injection (alarms.injection.action=stop): share of answers 0.30"
        ending = Ending("interrupted", dict(ACCOUNT), None, cause, (alarm,))
        case.world.newest("coordinator").train.end(ending)

    assert case.run(stop) == 1
    assert "cause: alarm injection" in capsys.readouterr().out
    summary = json.loads((case.folder / layout.SUMMARY).read_text())
    assert summary["state"] == "interrupted"
    assert ("injection", "fired", "stop") in case.world.events()
