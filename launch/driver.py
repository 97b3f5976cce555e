"""`dynalign train`: from a resolved configuration to an ended run.

    refuse what can be refused ─► own the run folder ─► cluster ─► supervision: actors start side by side, and are replaced
    watch: every second, progress and requests; any actor's end is an event        (actors/supervision/supervisor.py)
    beat: every few seconds, from a thread of its own, a sign of life in owner.json
    end: the report, the summary, every process gone

Ctrl-C or SIGTERM once: no more leases, the step under way is finished, a checkpoint is written, within `deadlines.stop_s`; the run can
be continued. Twice: at once.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self, cast

import ray

from dynalign.actors import logs
from dynalign.actors.run_spec import RunSpec
from dynalign.actors.supervision.supervisor import Supervisor
from dynalign.actors.supervision.worker_pool import root_cause
from dynalign.configs.errors import DynalignError, Mistake, RunFailed, StaleLineage, UserError, one_line
from dynalign.configs.load import LoadedRun
from dynalign.configs.schema import RunSettings
from dynalign.launch.preflight import Prepared, preflight
from dynalign.launch.progress import ProgressView
from dynalign.launch.ray_cluster import ray_job
from dynalign.launch.ray_cluster.capacity_wait import wait_for_capacity
from dynalign.launch.ray_cluster.connection import connect, reach
from dynalign.launch.report.report import write_report
from dynalign.launch.resume import mirrored
from dynalign.launch.resume.open_run import open_run
from dynalign.launch.spawner import RaySpawner
from dynalign.launch.summary import State, read_summary, summarize, summary_lines, write_summary
from dynalign.launch.withheld_prompts import poisoned_prompt
from dynalign.rollout.ledger.evaluation_leases import PoisonedItem
from dynalign.rollout.ledger.values import Break
from dynalign.run_folder import layout, owner, poison, requests
from dynalign.run_folder.checkpoint import newest_whole, read_manifest, verify
from dynalign.run_folder.layout import step_folder
from dynalign.run_folder.mirror import Mirror

logger = logging.getLogger(__name__)

EXIT_INTERRUPTED = 130  # as a shell reports a command that SIGINT ended

_POLL_S = 1.0
_BEAT_S = 5.0
_JOIN_S = 60.0


class Interrupts:
    """Counts SIGINT and SIGTERM instead of letting them break whatever line is running."""

    def __init__(self) -> None:
        self.count = 0
        self.first_s: float | None = None
        self._before: dict[signal.Signals, Any] = {}
        self.listen()

    def listen(self) -> None:
        """Again after `ray.init`, which takes SIGTERM for itself and lets the process end within seconds of one."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before.setdefault(number, signal.signal(number, self._note))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.first_s = time.monotonic() if self.first_s is None else self.first_s

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Heartbeat:
    """Signs of life from a thread of its own: neither Ray's start nor a slow answer may make this driver look dead."""

    def __init__(self, mine: owner.Owner) -> None:
        self._mine, self._ended, self._changing = mine, threading.Event(), threading.Lock()
        self._lost: DynalignError | None = None
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_S):
            try:
                with self._changing:
                    self._mine.beat(time.time())
            except StaleLineage as lost:
                self._lost = lost
                return
            except OSError as error:  # shared storage has its moments: only a silence that others would take for death ends the run
                if time.time() - self._mine.stamp.beat_s > owner.YOUNG_S:
                    self._lost = RunFailed(f"{layout.OWNER} cannot be written: {error}")
                    return

    def check(self) -> None:
        """Raises StaleLineage when another driver has taken the run over, RunFailed when the run folder takes no more writes."""
        if self._lost is not None:
            raise self._lost

    def new_lineage(self) -> int:
        """Begins the next lineage, for a return to a checkpoint. Raises StaleLineage like `check`."""
        with self._changing:
            return self._mine.new_lineage(time.time())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(_JOIN_S)


def train(loaded: LoadedRun) -> int:
    """Runs to the end, or continues an interrupted run.

    Returns the exit code: 0 finished, or stopped by `dynalign stop`; 1 failed; 130 interrupted by a signal, with a checkpoint.

    Raises UserError, with every mistake, before anything is started.
    """
    logs.configure(loaded.settings, "driver")
    opened = open_run(loaded)
    folder = opened.folder
    owner.refuse_occupied(folder.path, time.time())
    if (ended := folder.finished(loaded.settings)) is not None:
        for line in summary_lines(ended):
            print(line)
        return 0 if mirrored.catch_up(loaded.settings, folder) else 1
    dated = opened.dated()
    reach()
    ready = preflight(dated)
    lost = ready.mirrored is not None and ready.mirrored.lost is not None
    if ready.checkpoint is not None and not lost:
        verify(
            step_folder(folder.path / layout.CHECKPOINTS, ready.checkpoint.step)
        )  # every byte: the learner unpickles them
    folder.check_formats()
    interrupts = Interrupts()
    newest_lineage = max(folder.newest_lineage(), ready.checkpoint.lineage if ready.checkpoint else 0)
    mine = owner.acquire(folder.path, time.time(), ray_job.submission_id(), newest_lineage)
    if (warning := ray_job.stop_warning(loaded.settings.deadlines.stop_s)) is not None:
        print(warning)
    try:
        requests.take(folder.path)  # those that an earlier driver did not live to take
        with Heartbeat(mine) as heart:
            if ready.mirrored is not None and lost:
                mirrored.restore(ready.mirrored, folder.path, lambda: interrupts.count > 0)
                dated = opened.dated()
            folder.write_config(dated.loaded)
            with mirrored.kept(ready.mirrored, dated.settings, folder.path, mine) as mirror:
                return _Run(dated.settings, folder.path, mine.lineage, ready, interrupts, heart, mirror).run()
    finally:
        with suppress(StaleLineage):  # the run is another driver's by now
            mine.release(time.time())
        interrupts.restore()


class _Run:
    """One driver's attempt at a run: everything between owning the folder and letting it go."""

    def __init__(
        self,
        settings: RunSettings,
        folder: Path,
        lineage: int,
        ready: Prepared,
        interrupts: Interrupts,
        heart: Heartbeat,
        mirror: Mirror | None,
    ) -> None:
        self.settings, self.folder, self.ready = settings, folder, ready
        self.interrupts, self.heart, self.mirror = interrupts, heart, mirror
        self.started_s = time.time()
        self.step = ready.checkpoint.step if ready.checkpoint else 0
        self.spec = RunSpec(settings, str(folder), lineage, self.step, ready.prompts.content_hash)
        self.supervisor: Supervisor | None = None
        self.cause: str | None = None

    def run(self) -> int:
        started_here, state, refused = None, "failed", None
        with ProgressView() as view:
            try:
                self._show(view, "starting Ray")
                started_here = connect(self.settings)
                self.interrupts.listen()
                if not started_here:
                    self._find_room(view)
                    nodes = len(self.ready.plan.cluster.nodes)
                    logger.info(
                        "lineage %d begins at step %d, on a cluster of %d nodes",
                        self.spec.lineage,
                        self.step,
                        nodes,
                    )
                self.supervisor = Supervisor(
                    self.spec, RaySpawner(self.ready), self._rollback, self._newest_step, self._keep_poison
                )
                state = self._watch(self.supervisor, view)
                self.cause = self.supervisor.cause
            except (DynalignError, ray.exceptions.RayError) as error:
                self.cause, root = one_line(root_cause(error)), root_cause(error)
                refused = root if isinstance(root, UserError) and self._untouched() else None
            except OSError as error:  # the run folder's disk, most likely: what was whole there is whole
                self.cause = f"{one_line(error)}; free or mend that disk, and train again"
            finally:
                if self.supervisor is not None:
                    self.supervisor.end()
                if started_here is not None:
                    ray.shutdown()
        if (
            refused is not None
        ):  # a mistake that only the cluster or an actor could see, such as a port that is taken: nothing was trained
            raise refused
        return self._close("failed" if self.cause else state)

    def _untouched(self) -> bool:
        return (
            self.supervisor is None
            or self.supervisor.status is None
            or self.supervisor.status["state"] == "starting"
        )

    def _find_room(self, view: ProgressView) -> None:
        """Waits, in sight, until the cluster could hold the plan. Raises UserError with the figure that does not fit."""

        def waiting(lacking: Mistake) -> None:
            if self.interrupts.count:
                raise RunFailed("interrupted while it waited for room in the cluster")
            self._show(view, f"the cluster cannot hold the plan yet: {lacking}")
            self.heart.check()

        self.ready = self.ready.on(
            wait_for_capacity(self.ready.plan, self.settings.deadlines.place_s, waiting)
        )

    def _watch(self, supervisor: Supervisor, view: ProgressView) -> str:
        """Until the coordinator's loop ends."""
        while supervisor.ending is None:
            supervisor.mirror = None if self.mirror is None else self.mirror.report()
            supervisor.look(_POLL_S)
            self.heart.check()
            for request in requests.take(self.folder):
                if request.kind == "scale":
                    supervisor.scale(request.workers, "dynalign scale")
                else:
                    supervisor.ask(request.kind)
            if self.interrupts.count:
                supervisor.hurry()
            if self.interrupts.count > 1:
                raise RunFailed("interrupted twice: ended at once, without a new checkpoint")
            if supervisor.status is None:
                self._show(view, "starting the ledger, the learner and the workers")
            else:
                status = supervisor.status | supervisor.report()
                view.update(status | {"phase": _phase(status)})
                requests.write_status(self.folder, status)
        return str(supervisor.ending.state)

    def _rollback(self) -> tuple[int, int]:
        """The learner goes back to the newest whole checkpoint, every byte of which is checked: it unpickles them."""
        newest = newest_whole(self.folder / layout.CHECKPOINTS)
        return self.heart.new_lineage(), 0 if newest is None else verify(newest).step

    def _newest_step(self) -> int:
        newest = newest_whole(self.folder / layout.CHECKPOINTS)
        return 0 if newest is None else read_manifest(newest).step

    def _keep_poison(self, poisoned: Sequence[Break | PoisonedItem]) -> None:
        poison.append(
            self.folder, [poisoned_prompt(each, self.ready.prompts, time.time()) for each in poisoned]
        )

    def _show(self, view: ProgressView, phase: str) -> None:
        start = {
            "run": self.settings.name,
            "state": "starting",
            "step": self.step,
            "steps": self.settings.steps,
        }
        view.update(start | {"phase": phase, "started_s": self.started_s})

    def _close(self, state: str) -> int:
        """Summary and report, from the files that the run has left."""
        supervisor = self.supervisor
        ending, ledger = (None, None) if supervisor is None else (supervisor.ending, supervisor.ledger_status)
        ledger = ending.ledger if ending is not None else ledger
        if ledger is None:  # nothing was issued in this attempt
            for line in (
                f"run {self.settings.name} failed: {self.cause}",
                "nothing was trained; `dynalign train` starts it again",
            ):
                print(line)
            return 1
        before = read_summary(self.folder)
        wall_s = time.time() - self.started_s + (before.wall_s if before and self.step else 0.0)
        checkpoint = newest_whole(self.folder / layout.CHECKPOINTS)
        summary = summarize(
            self.folder, cast(State, state), self.settings.steps, ledger, wall_s, checkpoint, self.cause
        )
        try:
            write_summary(self.folder, summary)
            write_report([self.folder])
        except OSError as error:
            print(f"summary and report cannot be written: {one_line(error)}")
        for line in summary_lines(summary):
            print(line)
        whole = self.mirror is None or mirrored.finish(self.mirror, *self._last_copy())
        if state == "failed":
            return 1
        return EXIT_INTERRUPTED if self.interrupts.count else int(not whole)

    def _last_copy(self) -> tuple[float, Callable[[], bool]]:
        """The seconds that the mirror may still take, and when to give it up before: at the next signal."""
        count, since_s = self.interrupts.count, self.interrupts.first_s
        if since_s is None:
            return self.settings.deadlines.checkpoint_s, lambda: self.interrupts.count > count
        return max(
            0.0, self.settings.deadlines.stop_s - (time.monotonic() - since_s)
        ), lambda: self.interrupts.count > count


def _phase(status: Mapping[str, Any]) -> str:
    """What the coordinator does, after what the supervision and the disk have to say."""
    starting = [worker["name"] for worker in status["workers"] if worker["state"] == "starting"]
    told = [
        status["notice"],
        (status["mirror"] or {}).get("problem", ""),
        f"no room in the cluster yet for {', '.join(status['placing'])}" if status["placing"] else "",
        f"loading {', '.join(starting)}" if starting else "",
        status["phase"],
    ]
    return "; ".join(each for each in told if each)
