"""The runs of an experiment, as many side by side as there is room for, each to its end.

    waiting ─► started, as soon as there is room and nobody else drives its folder ─► ended: kept, said
      a signal        every running one is asked to stop; none is started; a second signal is passed on
      silence         one that gives no sign of life for too long is asked to stop, then killed
    One that fails ends no other one.

Nothing is remembered but in files: what was finished is left out when the same command is given again, and
what was interrupted goes on from its checkpoint by `resume: auto`.
"""

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from dynalign.configs.sections.deadlines import DeadlineSettings
from dynalign.launch.commands.experiment_files import ExperimentFiles, Named
from dynalign.launch.summary import duration
from dynalign.run_folder import owner

T = TypeVar("T", bound=Named)
"""A run, or another step that has a name."""
INTERRUPTED = 130
"""128 + SIGINT, as shells report it: stopped with a checkpoint."""
STOP_SLACK_S = 60.0
"""Beyond `deadlines.stop_s`, for the end of the process and of its Ray."""


class RunningArm(Protocol):
    """The process of a run. `CommandProcess` is the one that is used."""

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def ask_to_stop(self) -> None:
        """Asks for an end with a checkpoint; the second time, for an end at once."""

    def kill(self) -> None:
        """Ends it."""

    def silent_s(self) -> float:
        """Seconds since its last sign of life."""


class SignalCount(Protocol):
    """How often the user has asked to stop. `Interrupts` is the one that is used."""

    count: int


@dataclass(frozen=True)
class RunLimits:
    """The bounds of every wait, in seconds: `RunLimits(stop_s=120.0, silent_s=600.0, occupied_s=180.0)`."""

    stop_s: float
    """From asking a run to stop to its end, without the slack; after it, it is killed."""
    silent_s: float
    """Without a sign of life; after it, a run is asked to stop."""
    occupied_s: float
    """For another driver of the same run to end, such as one that an earlier command has left."""

    @staticmethod
    def of(deadlines: DeadlineSettings) -> "RunLimits":
        """By the run's own deadlines."""
        return RunLimits(deadlines.stop_s, deadlines.start_s, deadlines.stop_s + 2 * owner.YOUNG_S)


@dataclass
class _Running(Generic[T]):
    """A run with what is done about it."""

    run: T
    process: RunningArm
    started_s: float
    asked: int = 0
    kill_at_s: float | None = None
    cause: str = ""


@dataclass(frozen=True)
class RunTime:
    """Seconds that only grow, and how to let them pass: `RunTime(time.monotonic, time.sleep)`."""

    now: Callable[[], float] = time.monotonic
    """The clock."""
    sleep: Callable[[float], None] = time.sleep
    """Waits so many seconds."""


class ArmRuns(Generic[T]):
    """Starts runs and sees them to their ends.

    start: starts the process of a run. occupied: whether somebody else drives a run's folder. ended: called
    with a run after its end, such as to write the report. say: takes a line.
    """

    def __init__(
        self,
        files: ExperimentFiles,
        room: int,
        limits: RunLimits,
        start: Callable[[T], RunningArm],
        occupied: Callable[[T], bool],
        ended: Callable[[T], None],
        say: Callable[[str], None],
        signals: SignalCount,
        clock: RunTime | None = None,
    ) -> None:
        self._files = files
        self._room = room
        self._limits = limits
        self._start = start
        self._occupied = occupied
        self._ended = ended
        self._say = say
        self._signals = signals
        self._time = clock or RunTime()
        self._running: list[_Running[T]] = []
        self._waiting: list[T] = []
        self._total = 0

    def run(self, runs: Sequence[T]) -> bool:
        """Brings runs to their ends. Returns whether all were started and none was interrupted."""
        self._waiting = list(runs)
        self._total = len(runs)
        occupied_until_s: float | None = None
        while self._running or (self._waiting and not self._signals.count):
            started = self._start_what_fits()
            if started or self._running:
                occupied_until_s = None
            elif occupied_until_s is None:
                occupied_until_s = self._time.now() + self._limits.occupied_s
                self._say(f"waiting for another driver of {self._waiting[0].name} to end")
            elif self._time.now() >= occupied_until_s:
                self._give_up(self._waiting.pop(0))
                occupied_until_s = None
            for each in list(self._running):
                self._look_at(each)
            if self._running or self._waiting:
                self._time.sleep(1.0)
        return not self._signals.count

    def _start_what_fits(self) -> bool:
        """Whether a run was started."""
        if self._signals.count:
            return False
        started = False
        for run in list(self._waiting):
            if len(self._running) >= self._room:
                break
            if self._occupied(run):
                continue
            self._waiting.remove(run)
            self._files.begun(run)
            self._say(f"{run.name} starts, {self._total - len(self._waiting)} of {self._total}")
            self._running.append(_Running(run, self._start(run), self._time.now()))
            started = True
        return started

    def _look_at(self, each: _Running[T]) -> None:
        code = each.process.poll()
        now_s = self._time.now()
        if code is None:
            self._bound(each, now_s)
            return
        self._running.remove(each)
        if each.asked and code == -signal.SIGTERM:  # it was still importing
            code = INTERRUPTED
        # One that was ended for a cause has not been interrupted by the user, whatever its code says.
        code = 1 if each.cause and code == INTERRUPTED else code
        end = self._files.ended(each.run, code, each.cause)
        how = {0: "has ended", INTERRUPTED: "was interrupted"}.get(
            code, f"failed ({end.said or f'exit code {code}'})"
        )
        self._say(f"{each.run.name} {how} after {duration(now_s - each.started_s)}")
        self._ended(each.run)

    def _bound(self, each: _Running[T], now_s: float) -> None:
        """Asks a run to stop where the user wants it or it is silent, and kills it after its deadline."""
        if each.kill_at_s is not None and now_s >= each.kill_at_s:
            each.cause = each.cause or f"did not stop within {self._limits.stop_s + STOP_SLACK_S:g} s"
            each.process.kill()
            return
        wanted = min(2, self._signals.count)
        if not wanted and each.process.silent_s() > self._limits.silent_s:
            each.cause = f"no sign of life for {self._limits.silent_s:g} s"
            wanted = 1
        if each.asked < wanted:
            each.process.ask_to_stop()
            each.asked += 1
            each.kill_at_s = each.kill_at_s or now_s + self._limits.stop_s + STOP_SLACK_S

    def _give_up(self, run: T) -> None:
        cause = f"another driver has owned it for {self._limits.occupied_s:g} s"
        self._files.ended(run, 1, cause)
        self._say(f"{run.name} failed ({cause})")
        self._ended(run)
