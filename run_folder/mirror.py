"""Keeps `checkpoint.mirror` up to date, from a thread of the driver's process.

    thread   every second: does the mirror lack a complete checkpoint of the run folder? ─► copies it
             ─► removes what keep_last and keep_best no longer keep; waits for the storage only
    driver   calls `report`, for status and metrics, and `finish` at the end of the run, with a deadline

The training loop never waits for it. A failure is in `report`, is counted, and is tried again at growing
intervals. Nothing is written while the mirror holds a newer lineage than this driver's: then it belongs to
another run, or another driver has taken this run over.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from dynalign.configs.errors import CheckpointError, MirrorError, RecordError, StaleLineage, one_line
from dynalign.configs.sections.checkpoint import CheckpointSettings
from dynalign.run_folder import checkpoint, layout, owner
from dynalign.run_folder.checkpoint import CheckpointManifest, read_manifest
from dynalign.run_folder.metrics import best_rewards
from dynalign.run_folder.mirror_storage import MirrorStorage
from dynalign.run_folder.run_status import MirrorStatus

_LOOK_S = 1.0
"""Seconds between two looks at the run folder."""
_FENCE_S = 5.0
"""Seconds after which a copy asks again whether this driver still owns the run."""
_JOIN_S = 10.0
"""Seconds that the thread gets to end."""
_LONGEST_PAUSE_S = 300.0
"""Longest pause after a failure, in seconds."""
_LAST_ATTEMPTS = 3
"""Failures after which `finish` gives up."""


class _Ended(Exception):
    """Breaks a copy off. It never leaves this file."""


class Mirror:
    """The mirror of the run in `run_folder`, which `mine` owns. A context manager: its thread runs inside.

    address: the run's folder in the storage. retry_s: pause after a first failure, in seconds.
    """

    def __init__(
        self,
        storage: MirrorStorage,
        run_folder: Path,
        settings: CheckpointSettings,
        mine: owner.Owner,
        retry_s: float = 10.0,
    ) -> None:
        self.address = storage.address
        self._storage = storage
        self._folder = run_folder
        self._settings = settings
        self._mine = mine
        self._retry_s = retry_s
        self._failures = 0
        self._in_a_row = 0
        self._problem = ""
        # Step → when its manifest was written, of all checkpoints that the mirror is known to hold.
        self._copied: dict[int, int] = {}
        self._fenced_s = 0.0
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._idle = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="mirror", daemon=True)

    def report(self) -> MirrorStatus:
        """The state of the mirror at the moment."""
        ended = "" if self._thread.is_alive() else f"mirror {self.address}: its thread has ended"
        newest = max(self._copied, default=None)
        return MirrorStatus(self.address, newest, self._problem or ended, self._failures)

    def finish(self, deadline_s: float, given_up: Callable[[], bool]) -> str:
        """Waits until the mirror holds every complete checkpoint. Returns what is wrong, "" for nothing.

        It gives up after `deadline_s` seconds, when `given_up` returns True, or after a few failures.
        """
        until_s = time.monotonic() + deadline_s
        before = self._failures
        self._in_a_row = 0
        self._idle.clear()
        self._wake.set()
        while self._behind() or not self._idle.is_set():
            tried = self._failures - before >= _LAST_ATTEMPTS
            if tried or given_up() or not self._thread.is_alive() or time.monotonic() > until_s:
                return self._problem or f"mirror {self.address}: a checkpoint was still being copied"
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
                self._problem = ""
                self._in_a_row = 0
                self._idle.set()
            except _Ended:
                return
            except StaleLineage:  # this driver begins a new lineage, or another one has taken the run over
                pass
            except (MirrorError, CheckpointError, RecordError, OSError) as error:
                self._failures += 1
                self._in_a_row += 1
                named = isinstance(error, MirrorError | CheckpointError)
                self._problem = str(error) if named else one_line(error)
            pause_s = (
                min(_LONGEST_PAUSE_S, self._retry_s * 2.0 ** (self._in_a_row - 1))
                if self._in_a_row
                else _LOOK_S
            )
            self._wake.wait(pause_s)
            self._wake.clear()

    def _behind(self) -> dict[int, Path]:
        """Complete checkpoints that the mirror is not known to hold, newest first."""
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
            mine = f"this driver is lineage {self._mine.lineage}"
            cause = f"holds lineage {lineage}, {mine}: it is another run's, or another driver's by now"
            raise MirrorError(self.address, cause)
        for step, folder in behind.items():
            written = _written(folder)
            try:
                if there.get(step) != read_manifest(folder):
                    self._fence(at_once=True)
                    self._storage.send(folder, self._fence)
            except (FileNotFoundError, CheckpointError):
                if (folder / layout.MANIFEST).exists():
                    raise
                continue  # a newer checkpoint has replaced it here while it was copied
            if written is not None:
                self._copied[step] = written
        self._remove_what_is_not_kept(there)

    def _remove_what_is_not_kept(self, there: dict[int, CheckpointManifest]) -> None:
        """Removes old checkpoints, and those above the newest step of the run folder, which were rolled
        back."""
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
        """Ends a copy when the run ends or another driver has taken it over, which is read from the disk at
        intervals."""
        if self._ended.is_set():
            raise _Ended
        if at_once or time.monotonic() - self._fenced_s > _FENCE_S:
            owner.check(self._folder, self._mine.lineage)
            self._fenced_s = time.monotonic()


def _written(folder: Path) -> int | None:
    """When the manifest was written, in nanoseconds; None if it has just been removed."""
    try:
        return (folder / layout.MANIFEST).stat().st_mtime_ns
    except FileNotFoundError:
        return None
