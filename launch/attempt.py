"""One driver's attempt at a run: everything between owning the run folder and letting it go."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.exceptions import RayError

from dynalign.actors.run_spec import RunSpec
from dynalign.actors.supervision.deaths import root_cause
from dynalign.actors.supervision.departures import Poisoned
from dynalign.actors.supervision.supervisor import Supervisor
from dynalign.configs.errors import DynalignError, Mistake, RunFailed, UserError, one_line
from dynalign.configs.schema import RunSettings
from dynalign.launch.alarm_events import AlarmEvents
from dynalign.launch.closing import Account, close
from dynalign.launch.heartbeat import Heartbeat
from dynalign.launch.interrupts import Interrupts
from dynalign.launch.preflight import Prepared
from dynalign.launch.progress import ProgressView
from dynalign.launch.resume import mirrored
from dynalign.launch.session import RaySession, Session
from dynalign.launch.summary import State
from dynalign.launch.withheld_prompts import all_prompts, poisoned_prompt
from dynalign.run_folder import layout, poison, requests
from dynalign.run_folder.checkpoint import newest_whole, read_manifest, verify
from dynalign.run_folder.events import EventLog
from dynalign.run_folder.mirror import Mirror
from dynalign.run_folder.run_status import RunStatus

logger = logging.getLogger(__name__)

EXIT_INTERRUPTED = 130
"""As a shell reports a command that SIGINT ended."""

_LOOK_S = 1.0
"""Longest time, in seconds, from one look at actors, requests and signals to the next."""


class Attempt:
    """settings: with the run's day. lineage: the one that this driver has just begun. session: Ray.
    clock: the supervision's, seconds, monotonic."""

    def __init__(
        self,
        settings: RunSettings,
        folder: Path,
        lineage: int,
        ready: Prepared,
        interrupts: Interrupts,
        heart: Heartbeat,
        mirror: Mirror | None,
        session: Session | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._ready = ready
        self._interrupts = interrupts
        self._heart = heart
        self._mirror = mirror
        self._session = RaySession() if session is None else session
        self._clock = clock
        self._started_s = time.time()
        self._step = ready.checkpoint.step if ready.checkpoint else 0
        prompts_hash = ready.prompts.content_hash
        self._spec = RunSpec(settings, str(folder), lineage, self._step, prompts_hash, ready.content)
        self._supervisor: Supervisor | None = None
        self._cause: str | None = None
        self._stopped_by: str | None = None
        self._account: dict[str, Any] | None = None

    def run(self) -> int:
        """The exit code; see `driver.train`. Raises UserError for a mistake that only the cluster or an actor
        could see, such as a port that is taken, before anything was trained."""
        joined_or_started: bool | None = None
        state: State = "failed"
        refused: UserError | None = None
        with ProgressView() as view:
            try:
                self._show(view, "starting Ray")
                joined_or_started = self._session.connect(self._settings)
                self._interrupts.listen()
                if not joined_or_started:
                    self._find_room(view)
                self._supervisor = self._supervise()
                state = self._watch(self._supervisor, view)
                self._cause = self._supervisor.cause
            except (DynalignError, RayError) as error:
                root = root_cause(error)
                self._cause = one_line(root)
                refused = root if isinstance(root, UserError) and self._untouched() else None
            except OSError as error:  # the run folder's disk, most likely: what was whole there is whole
                self._cause = f"{one_line(error)}; free or mend that disk, and train again"
            finally:
                if self._supervisor is not None:
                    self._account = self._supervisor.account()
                    self._supervisor.end()
                if joined_or_started is not None:
                    self._session.close()
        if refused is not None:
            raise refused
        return self._close("failed" if self._cause else state)

    def _supervise(self) -> Supervisor:
        return Supervisor(
            self._spec,
            self._session.spawner(self._ready),
            self._rollback,
            self._newest_step,
            self._keep_poison,
            self._session.calls,
            self._clock,
        )

    def _untouched(self) -> bool:
        """Whether nothing was trained yet."""
        status = None if self._supervisor is None else self._supervisor.status
        return status is None or status.state == "starting"

    def _find_room(self, view: ProgressView) -> None:
        """Waits, in sight, until the cluster could hold the plan. Raises UserError with the figure that
        does not fit."""

        def waiting(lacking: Mistake) -> None:
            if self._interrupts.count:
                raise RunFailed("interrupted while it waited for room in the cluster")
            self._show(view, f"the cluster cannot hold the plan yet: {lacking}")
            self._heart.check()

        place_s = self._settings.deadlines.place_s
        self._ready = self._ready.on(self._session.wait_for_capacity(self._ready.plan, place_s, waiting))
        nodes = len(self._ready.plan.cluster.nodes)
        lineage = self._spec.lineage
        logger.info("lineage %d begins at step %d, on a cluster of %d nodes", lineage, self._step, nodes)

    def _watch(self, supervisor: Supervisor, view: ProgressView) -> State:
        """Until the coordinator's loop ends."""

        def lineage() -> int:
            return self._spec.lineage if supervisor.status is None else supervisor.status.lineage

        alarms = AlarmEvents(self._folder, EventLog(self._folder, lineage))
        while supervisor.ending is None:
            supervisor.mirror = None if self._mirror is None else self._mirror.report()
            supervisor.look(_LOOK_S)
            self._heart.check()
            self._take_requests(supervisor)
            if self._interrupts.count:
                supervisor.hurry()
            if self._interrupts.count > 1:
                raise RunFailed("interrupted twice: ended at once, without a new checkpoint")
            if supervisor.status is None:
                self._show(view, "starting the ledger, the learner and the workers")
            else:
                status = replace(supervisor.status, supervision=supervisor.report())
                alarms.tell(status.alarms)
                view.update(replace(status, phase=_phase(status)))
                self._write_status(status)
        alarms.tell(supervisor.ending.alarms)
        self._stopped_by = supervisor.ending.cause
        return supervisor.ending.state

    def _take_requests(self, supervisor: Supervisor) -> None:
        try:
            taken = requests.take(self._folder)
        except OSError as error:  # a request that is left is taken at the next look
            logger.warning("requests cannot be taken: %s", one_line(error))
            return
        for request in taken:
            if request.kind == "scale":
                supervisor.scale(request.workers, "dynalign scale")
            else:
                supervisor.ask(request.kind)

    def _write_status(self, status: RunStatus) -> None:
        """A status that cannot be written ends no run: it only informs."""
        try:
            requests.write_status(self._folder, status)
        except OSError as error:
            logger.warning("%s cannot be written: %s", layout.STATUS, one_line(error))

    def _rollback(self) -> tuple[int, int]:
        """A new lineage, from the newest whole checkpoint. Every byte of it is checked: the learner
        unpickles it."""
        newest = newest_whole(self._folder / layout.CHECKPOINTS)
        step = 0 if newest is None else verify(newest).step
        return self._heart.new_lineage(), step

    def _newest_step(self) -> int:
        newest = newest_whole(self._folder / layout.CHECKPOINTS)
        return 0 if newest is None else read_manifest(newest).step

    def _keep_poison(self, poisoned: Sequence[Poisoned]) -> None:
        """Writes to `poison.jsonl`, for inspection, which prompt was withheld and which workers it ended."""
        now_s = time.time()
        prompts = all_prompts(self._folder, self._ready.prompts, poisoned)
        poison.append(self._folder, [poisoned_prompt(each, prompts, now_s) for each in poisoned])

    def _show(self, view: ProgressView, phase: str) -> None:
        view.update(
            RunStatus(
                run=self._settings.name,
                state="starting",
                step=self._step,
                steps=self._settings.steps,
                phase=phase,
                started_s=self._started_s,
            )
        )

    def _close(self, state: State) -> int:
        ledger = self._account
        if ledger is None:  # nothing was issued in this attempt
            print(f"run {self._settings.name} failed: {self._cause}")
            print("nothing was trained; `dynalign train` starts it again")
            return 1
        steps = self._settings.steps
        cause = self._cause or self._stopped_by
        close(self._folder, Account(state, cause, ledger, steps, self._step > 0, self._started_s))
        whole = self._mirror is None or mirrored.finish(self._mirror, *self._last_copy())
        if state == "failed" or self._stopped_by:
            return 1
        return EXIT_INTERRUPTED if self._interrupts.count else int(not whole)

    def _last_copy(self) -> tuple[float, Callable[[], bool]]:
        """The seconds that the mirror may still take, and when to give it up before: at the next signal."""
        count = self._interrupts.count
        deadlines = self._settings.deadlines
        left_s = deadlines.checkpoint_s
        if self._interrupts.first_s is not None:
            left_s = max(0.0, deadlines.stop_s - (time.monotonic() - self._interrupts.first_s))
        return left_s, lambda: self._interrupts.count > count


def _phase(status: RunStatus) -> str:
    """What the coordinator does, after what the supervision and the disk have to say."""
    supervision = status.supervision
    starting = [worker.name for worker in supervision.workers if worker.state == "starting"]
    parts = [
        status.notice,
        supervision.mirror.problem if supervision.mirror else "",
        f"no room in the cluster yet for {', '.join(supervision.placing)}" if supervision.placing else "",
        f"loading {', '.join(starting)}" if starting else "",
        status.phase,
    ]
    return "; ".join(part for part in parts if part)
