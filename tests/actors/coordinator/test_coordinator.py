"""The loop, killed between any two of its lines: every group is trained once, whatever dies."""

import asyncio
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from dynalign.actors.coordinator.protocol import Ending
from dynalign.configs.errors import CheckpointWriteFailed, RunFailed, StepNotFinite, UntrainableGroups
from dynalign.configs.sections.alarms import AlarmSettings, AlarmsSettings
from dynalign.configs.sections.judge import JudgeSettings
from dynalign.rollout.ledger.log import committed, read
from dynalign.run_folder.checkpoint import read_manifest
from dynalign.run_folder.layout import checkpoint_folders
from dynalign.run_folder.metrics import read_metrics
from dynalign.run_folder.run_status import EndpointStatus, RunStatus, SupervisionStatus
from tests.worlds.coordinated_run import RUN, CoordinatedRun


def ended(folder: Path, at: int, die: str, stop_when_replaced: bool = False) -> tuple[CoordinatedRun, Ending]:
    async def run() -> tuple[CoordinatedRun, Ending]:
        run = CoordinatedRun(folder, at, die)
        run.stop_when_replaced = stop_when_replaced
        return run, await asyncio.wait_for(run.run(), 120)

    return asyncio.run(run())


def check(run: CoordinatedRun, ending: Ending) -> None:
    commits = committed(read(run.place.folder / "ledger.log"))
    assert [commit.step for commit in commits] == [1, 2, 3, 4]
    assert {commit.step: commit.group_ids for commit in commits} == run.trained
    ids = [group_id for commit in commits for group_id in commit.group_ids]
    assert len(ids) == len(set(ids)) == 8
    ledger = ending.ledger
    assert (ending.state, ledger["pending"], ledger["leased"], ledger["scored"]) == ("finished", 0, 0, 0)
    assert ledger["issued"] == ledger["trained"] + ledger["withheld"]
    assert ledger["trained"] == 8
    assert run.newest() == 4


CALLS = 46
"""More than a run of four steps makes."""


def test_a_run_that_nobody_kills_ends_well(tmp_path: Path) -> None:
    run, ending = ended(tmp_path, 0, "nobody")
    check(run, ending)
    assert 20 < run.calls < CALLS


@pytest.mark.parametrize("die", ["coordinator before", "coordinator after", "ledger before", "ledger after"])
def test_killed_at_any_call_of_the_loop_every_group_is_trained_once(tmp_path: Path, die: str) -> None:
    for at in range(1, CALLS):
        check(*ended(tmp_path / str(at), at, die))


@pytest.mark.parametrize("die", ["coordinator before", "coordinator after"])
def test_a_checkpoint_holds_the_learner_s_state_of_its_own_step_also_where_a_successor_stops_at_once(
    tmp_path: Path, die: str
) -> None:
    stopped_early = 0
    for at in range(1, 40, 2):
        case, ending = ended(tmp_path / str(at), at, die, stop_when_replaced=True)
        stopped_early += ending.state == "interrupted"
        for folder in checkpoint_folders(case.place.folder / "checkpoints").values():
            assert int((folder / "weights").read_text()) == read_manifest(folder).step
        if ending.checkpoint is not None:
            assert len(case.trained) == read_manifest(Path(ending.checkpoint)).step
    assert stopped_early > 5


def test_a_checkpoint_that_cannot_be_written_is_tried_again_and_the_run_goes_on(tmp_path: Path) -> None:
    class OnceFull(CoordinatedRun):
        def learn(self, method: str, *arguments: Any) -> Any:
            self.disk_full = method == "save" and arguments[1] == 2
            return super().learn(method, *arguments)

    async def run() -> None:
        run = OnceFull(tmp_path, 0, "nobody")
        check(run, await asyncio.wait_for(run.run(), 120))
        assert (tmp_path / "checkpoints" / "step-000003").is_dir()

    asyncio.run(run())


def test_the_last_checkpoint_is_tried_again_at_once_since_no_step_follows(tmp_path: Path) -> None:
    class OnceFullAtTheEnd(CoordinatedRun):
        failed = False

        def learn(self, method: str, *arguments: Any) -> Any:
            self.disk_full = method == "save" and arguments[1] == 4 and not self.failed
            self.failed = self.failed or self.disk_full
            return super().learn(method, *arguments)

    async def run() -> None:
        run = OnceFullAtTheEnd(tmp_path, 0, "nobody")
        check(run, await asyncio.wait_for(run.run(), 120))
        assert run.failed

    asyncio.run(run())


def test_a_disk_that_stays_full_ends_the_run_with_the_cause_and_keeps_what_was_whole(tmp_path: Path) -> None:
    class Full(CoordinatedRun):
        def learn(self, method: str, *arguments: Any) -> Any:
            self.disk_full = method == "save" and arguments[1] > 2
            return super().learn(method, *arguments)

    async def run() -> None:
        run = Full(tmp_path, 0, "nobody")
        with pytest.raises(CheckpointWriteFailed, match="No space left"):
            await asyncio.wait_for(run.run(), 120)
        assert run.newest() == 2

    asyncio.run(run())


class Diverged(CoordinatedRun):
    """The gradient of step 2 is not finite, so many times."""

    times = 1

    def learn(self, method: str, *arguments: Any) -> Any:
        if method == "run" and arguments[0] == 2 and self.times:
            self.times -= 1
            raise StepNotFinite(2, 0.5, math.inf)
        return super().learn(method, *arguments)


def test_a_step_that_is_not_finite_is_skipped_and_its_batch_is_generated_again(tmp_path: Path) -> None:
    async def case() -> None:
        run = Diverged(tmp_path, 0, "nobody")
        check(run, await asyncio.wait_for(run.run(), 120))
        assert run.times == 0

    asyncio.run(case())


class Damaged(CoordinatedRun):
    """Step 2 finds a group that cannot be trained on."""

    refused: int | None = None

    def learn(self, method: str, *arguments: Any) -> Any:
        if method == "prepare" and arguments[0] == 2 and self.refused is None:
            self.refused = arguments[1][0].group_id
            raise UntrainableGroups({self.refused: f"group {self.refused}: a score of 1e9"})
        return super().learn(method, *arguments)


def test_a_group_that_cannot_be_trained_on_is_withheld_and_the_run_goes_on(tmp_path: Path) -> None:
    async def case() -> None:
        run = Damaged(tmp_path, 0, "nobody")
        check(run, await asyncio.wait_for(run.run(), 120))
        assert run.refused is not None
        assert all(run.refused not in group_ids for group_ids in run.trained.values())

    asyncio.run(case())


def test_steps_that_are_not_finite_end_the_run_after_three_in_a_row(tmp_path: Path) -> None:
    async def case() -> None:
        run = Diverged(tmp_path, 0, "nobody")
        run.times = 100
        with pytest.raises(RunFailed, match="gradient norm inf; nothing was updated; skipped 3 in a row"):
            await asyncio.wait_for(run.run(), 120)
        assert run.times == 97
        assert [commit.step for commit in committed(read(tmp_path / "ledger.log"))] == [1]

    asyncio.run(case())


class Attacked(CoordinatedRun):
    """Every answer of every step looks like an attack, and the alarm does what it is set to."""

    def __init__(self, folder: Path, action: str) -> None:
        injection = AlarmSettings.model_validate({"action": action, "threshold": 1.0})
        alarms = AlarmsSettings(injection=injection)
        super().__init__(folder, 0, "nobody", RUN.model_copy(update={"alarms": alarms}))

    def learn(self, method: str, *arguments: Any) -> Any:
        done = super().learn(method, *arguments)
        return (done[0] | {"injection_fraction": 1.0}, done[1]) if method == "run" else done

    async def state(self) -> RunStatus:
        return await self.coordinator.look(SupervisionStatus(), asdict(await self.ledger.status()))


def test_an_alarm_that_stops_the_run_ends_it_with_a_checkpoint_and_its_cause(tmp_path: Path) -> None:
    async def case() -> None:
        run = Attacked(tmp_path, "stop")
        ending = await asyncio.wait_for(run.run(), 120)
        assert (ending.state, run.newest()) == ("interrupted", 1)
        assert ending.cause is not None
        assert ending.cause.startswith("alarm injection (alarms.injection.action=stop): share of answers")
        assert [alarm.name for alarm in ending.alarms] == ["injection"]

    asyncio.run(case())


def test_an_alarm_that_pauses_the_run_lets_a_person_resume_it_once_and_for_all(tmp_path: Path) -> None:
    async def case() -> None:
        run = Attacked(tmp_path, "pause")
        training = asyncio.create_task(run.run())
        while not run.trained or (status := await run.state()).state != "paused":
            await asyncio.sleep(0.01)
        assert (status.step, [alarm.fired_step for alarm in status.alarms]) == (1, [1])
        assert status.phase.startswith("paused by alarm injection (alarms.injection.action=pause): share")
        await run.coordinator.control("resume")
        check(run, await training)

    asyncio.run(asyncio.wait_for(case(), 120))


def test_an_alarm_that_warns_changes_nothing_but_the_row(tmp_path: Path) -> None:
    async def case() -> None:
        run = Attacked(tmp_path, "warn")
        check(run, await asyncio.wait_for(run.run(), 120))
        fired = {row["step"]: row["alarm_injection"] for row in read_metrics(run.place.folder)}
        assert fired == {0: None, 1: 1, 2: 1, 3: 1, 4: 1}

    asyncio.run(case())


def test_a_budget_that_is_reached_stops_the_run_with_a_checkpoint_and_says_what_continues_it(
    tmp_path: Path,
) -> None:
    endpoint = {"address": "http://judge/v1", "model": "gpt", "budget_tokens": 9000}
    judge = JudgeSettings.model_validate({"probes": ("big",), "endpoints": {"big": endpoint}})
    account = EndpointStatus("big", 1, 40, 2, 8_990, 0.0, 300.0)

    async def case() -> None:
        run = CoordinatedRun(tmp_path, 0, "nobody", RUN.model_copy(update={"judge": judge}))
        training = asyncio.create_task(run.run())
        while not run.trained:
            await asyncio.sleep(0)
        for reached in ("", "the budget is reached: 8,990 of 9,000 tokens are spent; raise it to continue"):
            assert not run.coordinator._controls.stopping
            seen = SupervisionStatus(endpoints=(replace(account, budget_reached=reached),))
            await run.coordinator.look(seen, asdict(await run.ledger.status()))
        ending = await training
        assert ending.state == "interrupted"
        assert run.newest() == len(run.trained) >= 1
        assert ending.cause == (
            "judge.endpoints.big: the budget is reached: 8,990 of 9,000 tokens are spent; raise it to "
            "continue (judge.endpoints.big.budget_tokens)"
        )

    asyncio.run(asyncio.wait_for(case(), 120))
