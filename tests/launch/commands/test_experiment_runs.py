"""The runs of an experiment: kills, signals, silence, and other drivers. Time is counted, not waited for."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dynalign.launch.commands.experiment_files import ArmRun, last_line
from dynalign.launch.commands.experiment_runs import STOP_SLACK_S, ArmRuns, RunLimits
from tests.worlds.experiment_world import ExperimentWorld, Killed

RUNS = [ArmRun(arm, seed) for seed in range(3) for arm in ("a", "b")]
LIMITS = RunLimits(stop_s=20.0, silent_s=100.0, occupied_s=50.0)


class Signals:
    count = 0


class Seen:
    """What was said, and which runs have ended."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.ended: list[str] = []


def runs_of(
    world: ExperimentWorld,
    seen: Seen,
    signals: Signals,
    room: int = 1,
    occupied: Callable[[ArmRun], bool] = lambda run: False,
) -> ArmRuns[ArmRun]:
    return ArmRuns(
        world.files, room, LIMITS, lambda run: world.start_in(world.files, run), occupied,
        lambda run: seen.ended.append(run.name), seen.said.append, signals, world.clock,
    )  # fmt: skip


def left(world: ExperimentWorld) -> list[ArmRun]:
    return [run for run in RUNS if world.files.outcome(run, 0.0).state != "finished"]


@pytest.mark.parametrize("died_at", range(len(RUNS)))
def test_killed_at_any_start_the_next_call_runs_what_is_left_and_nothing_twice(
    tmp_path: Path, died_at: int
) -> None:
    world = ExperimentWorld(tmp_path, dies_at=died_at)
    with pytest.raises(Killed):
        runs_of(world, Seen(), Signals()).run(RUNS)
    assert [run.name for run in left(world)] == [run.name for run in RUNS[died_at:]]
    world.dies_at = None
    assert runs_of(world, Seen(), Signals()).run(left(world))
    assert world.started == [run.name for run in RUNS]
    assert left(world) == []


def test_a_run_whose_command_was_killed_is_interrupted_and_no_failed_one(tmp_path: Path) -> None:
    world = ExperimentWorld(tmp_path)
    run = RUNS[0]
    world.files.run(run).mkdir(parents=True)
    (world.files.run(run) / "config.yaml").touch()
    assert world.files.outcome(run, 0.0).state == "interrupted"
    assert world.files.outcome(RUNS[1], 0.0).state == "not started"


def test_a_failed_run_is_kept_with_its_last_line_and_a_new_start_forgets_it(tmp_path: Path) -> None:
    world = ExperimentWorld(tmp_path, codes={"a-s0": 1})
    seen = Seen()
    assert runs_of(world, seen, Signals()).run(RUNS)
    outcome = world.files.outcome(RUNS[0], 0.0)
    assert (outcome.state, outcome.said) == ("failed", "EngineError: out of memory")
    assert seen.ended == [run.name for run in RUNS]
    assert seen.said[1] == "a-s0 failed (EngineError: out of memory) after 0 s"
    world.endless = {"a-s0"}
    world.dies_at = None
    signals = Signals()
    world.silent_s = 1e9  # it is asked to stop at once
    runs_of(world, Seen(), signals).run([RUNS[0]])
    assert world.files.outcome(RUNS[0], 0.0).said == "no sign of life for 100 s"


def test_as_many_run_side_by_side_as_there_is_room_for(tmp_path: Path) -> None:
    world = ExperimentWorld(tmp_path, endless={"a-s0", "b-s0"}, silent_s=1e9)
    seen = Seen()
    runs_of(world, seen, Signals(), room=3).run(RUNS)
    assert seen.said[:3] == ["a-s0 starts, 1 of 6", "b-s0 starts, 2 of 6", "a-s1 starts, 3 of 6"]
    assert world.started == [run.name for run in RUNS]


@pytest.mark.parametrize(("asked_for", "sent", "code"), [(1, 1, 130), (2, 2, 130), (5, 2, 130), (1, 1, -15)])
def test_signals_reach_every_running_run_and_no_other_one_is_started(
    tmp_path: Path, asked_for: int, sent: int, code: int
) -> None:
    world = ExperimentWorld(tmp_path, endless={"a-s0", "b-s0"}, stops_after=sent, stop_code=code)
    signals = Signals()
    passed = world.pass_time

    def signal(seconds: float) -> None:
        passed(seconds)
        signals.count = min(asked_for, signals.count + 1)

    world.pass_time = signal  # type: ignore[method-assign]
    seen = Seen()
    assert not runs_of(world, seen, signals, room=2).run(RUNS)
    assert world.started == ["a-s0", "b-s0"]
    assert [line.split(" after")[0] for line in seen.said[2:]] == [
        "a-s0 was interrupted",
        "b-s0 was interrupted",
    ]


def test_a_run_that_does_not_stop_is_killed_after_its_deadline(tmp_path: Path) -> None:
    world = ExperimentWorld(tmp_path, endless={"a-s0"}, stops_after=99)
    signals = Signals()
    signals.count = 0
    runs = runs_of(world, Seen(), signals)
    world.silent_s = 1e9
    runs.run([RUNS[0]])
    assert LIMITS.stop_s + STOP_SLACK_S <= world.passed_s <= LIMITS.stop_s + STOP_SLACK_S + 3
    assert world.files.outcome(RUNS[0], 0.0).state == "failed"


def test_another_driver_is_waited_for_while_other_runs_go_on_and_not_for_ever(tmp_path: Path) -> None:
    world = ExperimentWorld(tmp_path)
    seen = Seen()
    assert runs_of(world, seen, Signals(), occupied=lambda run: run.name == "a-s0").run(RUNS)
    assert world.started == [run.name for run in RUNS[1:]]
    assert LIMITS.occupied_s <= world.passed_s <= LIMITS.occupied_s + 10
    assert world.files.outcome(RUNS[0], 0.0).said == "another driver has owned it for 50 s"


def test_the_last_line_of_a_log_is_one_line_without_control_characters(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x\n" * 5000 + b"\x1b[31mRunFailed:\x07 the  end\xff\n\n  \n")
    assert last_line(log) == "[31mRunFailed: the end\ufffd"
    assert last_line(tmp_path / "none") == ""
    log.write_text("run a-s0 failed: RunFailed: no Ray\nnothing was trained; try again\n")
    assert last_line(log) == "nothing was trained; try again"
    assert last_line(log, "run a-s0 failed:") == "RunFailed: no Ray"
