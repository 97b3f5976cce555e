"""`dynalign train`: from a resolved configuration to an ended run.

    refuse what can be refused ─► own the run folder ─► cluster ─► actors start side by side ─► coordinator.train
    watch: every second, progress and requests; any actor's end is an event
    beat: every few seconds, from a thread of its own, a sign of life in owner.json
    end: the report, the summary, every process gone

Ctrl-C or SIGTERM once: the step under way is finished, a checkpoint is written, the run can be continued. Twice: at once.
"""

import datetime
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self, cast

import ray

from actors.run_place import RunPlace
from configs.errors import DeadlineExceeded, DynalignError, RunFailed, StaleLineage
from configs.load import LoadedRun, load_run
from configs.schema import RunSettings
from launch import cluster
from launch.control import take_requests, write_status
from launch.preflight import Prepared, preflight
from launch.progress import ProgressView
from launch.report import write_report
from launch.run_folder import CONFIG_FILE, RunFolder, open_run_folder
from launch.summary import State, read_summary, summarize, summary_lines, write_summary
from learner.checkpoint import step_folder, verify
from rollout import owner

EXIT_INTERRUPTED = 130  # as a shell reports a command that SIGINT ended

_POLL_S = 1.0
_BEAT_S = 5.0
_ANSWER_DEADLINE_S = 60.0


class Interrupts:
    """Counts SIGINT and SIGTERM instead of letting them break whatever line is running."""

    def __init__(self) -> None:
        self.count = 0
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Heartbeat:
    """Signs of life from a thread of its own: neither Ray's start nor a slow answer may make this driver look dead."""

    def __init__(self, mine: owner.Owner) -> None:
        self._mine, self._ended = mine, threading.Event()
        self._lost: DynalignError | None = None
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_S):
            try:
                self._mine.beat(time.time())
            except StaleLineage as lost:
                self._lost = lost
                return
            except OSError as error:  # shared storage has its moments: only a silence that others would take for death ends the run
                if time.time() - self._mine.stamp.beat_s > owner.YOUNG_S:
                    self._lost = RunFailed(f"owner.json cannot be written: {error}")
                    return

    def check(self) -> None:
        """Raises StaleLineage when another driver has taken the run over, RunFailed when the run folder takes no more writes."""
        if self._lost is not None:
            raise self._lost

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(_ANSWER_DEADLINE_S)


def train(loaded: LoadedRun) -> int:
    """Runs to the end, or continues an interrupted run.

    Returns the exit code: 0 finished, or stopped by `dynalign stop`; 1 failed; 130 interrupted by a signal, with a checkpoint.

    Raises UserError, with every mistake, before anything is started.
    """
    folder = open_run_folder(loaded)
    if (ended := folder.finished(loaded.settings)) is not None:
        for line in summary_lines(ended):
            print(line)
        return 0
    loaded = _dated(loaded, folder)
    ready = preflight(loaded)
    if ready.checkpoint is not None:
        verify(step_folder(folder.path / "checkpoints", ready.checkpoint.step))  # every byte: the learner unpickles them
    interrupts = Interrupts()
    mine = owner.acquire(folder.path, time.time(), newest_lineage=folder.newest_lineage())
    try:
        folder.write_config(loaded)
        take_requests(folder.path)  # those that an earlier driver did not live to take
        with Heartbeat(mine) as heart:
            return _Run(loaded.settings, folder.path, mine.lineage, ready, interrupts, heart).run()
    finally:
        with suppress(StaleLineage):  # the run is another driver's by now
            mine.release(time.time())
        interrupts.restore()


def _dated(loaded: LoadedRun, folder: RunFolder) -> LoadedRun:
    """The run with its day fixed: the one it began on, also when it is continued on a later one."""
    if loaded.settings.date is not None:
        return loaded
    config = folder.path / CONFIG_FILE
    date = load_run(str(config)).settings.date if config.exists() else None
    dated = loaded.settings.model_copy(update={"date": date or datetime.date.today().isoformat()})
    return LoadedRun(dated, loaded.origins | {"date": "the day the run began"})


class _Run:
    """One driver's attempt at a run: everything between owning the folder and letting it go."""

    def __init__(
        self, settings: RunSettings, folder: Path, lineage: int, ready: Prepared, interrupts: Interrupts, heart: Heartbeat
    ) -> None:
        self.settings, self.folder, self.lineage, self.ready = settings, folder, lineage, ready
        self.interrupts, self.heart = interrupts, heart
        self.started_s = time.time()
        self.served: set[str] = set()
        self.cause: str | None = None
        self.ledger: Mapping[str, Any] | None = None
        self.step = ready.checkpoint.step if ready.checkpoint else 0
        self.checkpoint = str(step_folder(folder / "checkpoints", self.step)) if self.step else None

    def run(self) -> int:
        actors, started_here, state = None, False, "failed"
        with ProgressView() as view:
            try:
                self._show(view, "starting Ray")
                started_here = cluster.connect(self.settings)
                place = RunPlace(self.settings, str(self.folder), self.lineage, self.step, self.ready.prompts.content_hash)
                actors = cluster.create_actors(place, self.ready)
                state = self._watch(actors, view)
            except (DynalignError, ray.exceptions.RayError) as error:
                self.cause = _one_line(error)
            finally:
                cluster.end(actors, started_here)
        return self._close("failed" if self.cause else state)

    def _watch(self, actors: cluster.RunActors, view: ProgressView) -> str:
        """Until the coordinator's loop ends. Engines and learner load side by side; a worker serves as soon as it is ready.

        A worker that ends before the run stops the run, which keeps a whole checkpoint.
        """
        ray.get(actors.ledger.start.remote(), timeout=self.settings.deadlines.start_s)
        training = actors.coordinator.train.remote()
        starting = {worker.start.remote(): name for name, worker in actors.workers.items()}
        serving: dict[Any, str] = {}
        until_s, stop_asked = time.monotonic() + self.settings.deadlines.start_s, False
        while True:
            done, _ = ray.wait([training, *starting, *serving], timeout=_POLL_S)
            if training in done:
                ending = ray.get(training)
                self.ledger, self.checkpoint = ending.ledger, ending.checkpoint
                return str(ending.state)
            for reference in done:
                name = starting.pop(reference, None) or serving.pop(reference)
                if self._succeeded(reference, name) and name not in self.served:
                    self.served.add(name)
                    ray.get(actors.coordinator.add_worker.remote(name, actors.workers[name]), timeout=_ANSWER_DEADLINE_S)
                    serving[actors.workers[name].serve.remote()] = name
            if starting and time.monotonic() > until_s:
                raise DeadlineExceeded(", ".join(starting.values()) + " to start", self.settings.deadlines.start_s)
            requests: list[str] = list(take_requests(self.folder))
            if (self.interrupts.count or self.cause) and not stop_asked:
                requests, stop_asked = ["stop"], True
            for what in requests:
                ray.get(actors.coordinator.control.remote(what), timeout=_ANSWER_DEADLINE_S)
            if self.interrupts.count > 1:
                raise RunFailed("interrupted twice: ended at once, without a new checkpoint")
            self.heart.check()
            status = ray.get(actors.coordinator.status.remote(), timeout=_ANSWER_DEADLINE_S)
            self.ledger = status["ledger"]
            write_status(self.folder, status)
            view.update(status | {"phase": self._loading(status["phase"], list(starting.values()))})

    def _loading(self, phase: str, names: list[str]) -> str:
        return f"loading {', '.join(names)}; {phase}" if names else phase

    def _succeeded(self, call: Any, name: str) -> bool:
        """Whether a worker's call that is done ended without an error; the first error is the cause of the run's end."""
        try:
            ray.get(call)
        except (DynalignError, ray.exceptions.RayError) as error:
            self.cause = self.cause or f"{name} ended: {_one_line(error)}"
            return False
        return True

    def _show(self, view: ProgressView, phase: str) -> None:
        start = {"run": self.settings.name, "state": "starting", "step": self.step, "steps": self.settings.steps}
        view.update(start | {"phase": phase, "started_s": self.started_s})

    def _close(self, state: str) -> int:
        """Summary and report, from the files that the run has left."""
        if self.ledger is None:  # nothing was issued in this attempt
            for line in (f"run {self.settings.name} failed: {self.cause}", "nothing was trained; `dynalign train` starts it again"):
                print(line)
            return 1
        before = read_summary(self.folder)
        wall_s = time.time() - self.started_s + (before.wall_s if before and self.step else 0.0)
        checkpoint = Path(self.checkpoint) if self.checkpoint else None
        summary = summarize(self.folder, cast(State, state), self.settings.steps, self.ledger, wall_s, checkpoint, self.cause)
        write_summary(self.folder, summary)
        write_report([self.folder])
        for line in summary_lines(summary):
            print(line)
        if state == "failed":
            return 1
        return EXIT_INTERRUPTED if self.interrupts.count else 0


def _one_line(error: BaseException) -> str:
    cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
    return f"{type(cause).__name__}: {cause}".replace("\n", " ")
