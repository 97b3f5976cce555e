"""`checkpoint.mirror` kept up to date, from a thread of the driver's process.

    thread   looks every second whether the run folder holds a whole checkpoint that the mirror lacks ─► copies it ─► removes from the
             mirror what keep_last and keep_best no longer keep                                     waits for: the storage, nobody else
    driver   `report`, for status and metrics; `finish` at the end of the run, with a deadline

The loop never waits for it. What fails is told in `report`, counted, and tried again, at growing intervals. Nothing is written while
the mirror holds a newer lineage than this driver's: it is another run's, or another driver has taken this one over.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dynalign.configs.errors import CheckpointError, MirrorError, RecordError, StaleLineage, one_line
from dynalign.configs.sections.checkpoint import CheckpointSettings
from dynalign.run_folder import checkpoint, layout, owner
from dynalign.run_folder.checkpoint import CheckpointManifest, read_manifest
from dynalign.run_folder.metrics import best_rewards
from dynalign.run_folder.mirror_storage import MirrorStorage

_LOOK_S = 1.0
_FENCE_S = 5.0
_JOIN_S = 10.0
_LONGEST_PAUSE_S = 300.0
_LAST_ATTEMPTS = 3


class _Ended(Exception):
    """Breaks a copy off; never leaves this file."""


class Mirror:
    """The mirror of the run in `run_folder`, which `mine` owns. A context: the thread lives in it. retry_s: the pause after a first
    failure, in seconds."""

    def __init__(
        self,
        storage: MirrorStorage,
        run_folder: Path,
        settings: CheckpointSettings,
        mine: owner.Owner,
        retry_s: float = 10.0,
    ) -> None:
        self.place, self._storage, self._folder, self._settings, self._mine = (
            storage.place,
            storage,
            run_folder,
            settings,
            mine,
        )
        self._retry_s, self._failures, self._in_a_row, self._problem = retry_s, 0, 0, ""
        self._copied: dict[
            int, int
        ] = {}  # step → when its manifest was written, of all that the mirror is known to hold
        self._fenced_s = 0.0
        self._wake, self._ended, self._idle = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="mirror", daemon=True)

    def report(self) -> dict[str, Any]:
        """step: the newest checkpoint that the mirror holds, None before the first. problem: why it lacks one, "" while nothing is
        wrong. failures: attempts that failed."""
        ended = "" if self._thread.is_alive() else f"mirror {self.place}: its thread has ended"
        return {
            "place": self.place,
            "step": max(self._copied, default=None),
            "problem": self._problem or ended,
            "failures": self._failures,
        }

    def finish(self, deadline_s: float, given_up: Callable[[], bool]) -> str:
        """Waits until the mirror holds every whole checkpoint: `deadline_s` at the most, until `given_up`, and for a few attempts where
        one fails. Returns what is wrong, "" for nothing."""
        until_s, before, self._in_a_row = time.monotonic() + deadline_s, self._failures, 0
        self._idle.clear()
        self._wake.set()
        while self._behind() or not self._idle.is_set():
            tried = self._failures - before >= _LAST_ATTEMPTS
            if tried or given_up() or not self._thread.is_alive() or time.monotonic() > until_s:
                return self._problem or f"mirror {self.place}: a checkpoint was still being copied"
            self._idle.wait(0.1)
        return ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._wake.set()
        self._thread.join(_JOIN_S)

    def _keep(self) -> None:
        while not self._ended.is_set():
            try:
                self._bring_up_to_date()
                self._problem, self._in_a_row = "", 0
                self._idle.set()
            except _Ended:
                return
            except StaleLineage:  # a new lineage begins here, or this driver ends for it
                pass
            except (MirrorError, CheckpointError, RecordError, OSError) as error:
                self._failures, self._in_a_row = self._failures + 1, self._in_a_row + 1
                self._problem = (
                    str(error) if isinstance(error, MirrorError | CheckpointError) else one_line(error)
                )
            pause_s = (
                min(_LONGEST_PAUSE_S, self._retry_s * 2.0 ** (self._in_a_row - 1))
                if self._in_a_row
                else _LOOK_S
            )
            self._wake.wait(pause_s)
            self._wake.clear()

    def _behind(self) -> dict[int, Path]:
        """Whole checkpoints that the mirror is not known to hold, newest first."""
        here = {}
        for step, folder in checkpoint.whole(self._folder / layout.CHECKPOINTS).items():
            written = _written(folder)
            if written is not None and self._copied.get(step) != written:
                here[step] = folder
        return here

    def _bring_up_to_date(self) -> None:
        behind = self._behind()
        if not behind:
            return
        there = self._storage.checkpoints()
        lineage = max((manifest.lineage for manifest in there.values()), default=0)
        if lineage > self._mine.lineage:
            rule = f"holds lineage {lineage}, this driver is lineage {self._mine.lineage}: it is another run's, or another driver's by now"
            raise MirrorError(self.place, rule)
        for step, folder in behind.items():
            written = _written(folder)
            try:
                if there.get(step) != read_manifest(folder):
                    self._fence(at_once=True)
                    self._storage.send(folder, self._fence)
            except (FileNotFoundError, CheckpointError):
                if (folder / layout.MANIFEST).exists():
                    raise
                continue  # a newer one has taken its place here while it was copied
            if written is not None:
                self._copied[step] = written
        self._remove_what_is_not_kept(there)

    def _remove_what_is_not_kept(self, there: dict[int, CheckpointManifest]) -> None:
        """A step above the newest one of the run folder belongs to a history that was given up."""
        here = checkpoint.whole(self._folder / layout.CHECKPOINTS)
        whole = {step for step in there if step <= max(here, default=0)} | here.keys()
        rewards = best_rewards(self._folder, self._settings.keep_best)
        staying = (
            checkpoint.kept(whole, self._settings.keep_last, self._settings.keep_best, rewards) | here.keys()
        )
        for step in self._storage.steps():
            if step not in staying:
                self._fence(at_once=True)
                self._storage.remove(step)
        self._copied = {step: written for step, written in self._copied.items() if step in staying}

    def _fence(self, at_once: bool = False) -> None:
        """Ends a copy when the run ends, or is another driver's; that stands on disk, which is asked every few seconds."""
        if self._ended.is_set():
            raise _Ended
        if at_once or time.monotonic() - self._fenced_s > _FENCE_S:
            owner.check(self._folder, self._mine.lineage)
            self._fenced_s = time.monotonic()


def _written(folder: Path) -> int | None:
    """When its manifest was written; None when it has just been removed."""
    try:
        return (folder / layout.MANIFEST).stat().st_mtime_ns
    except FileNotFoundError:
        return None
