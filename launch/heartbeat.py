"""The driver's sign of life in `owner.json`, from a thread of its own."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from dynalign.configs.errors import DynalignError, RecordError, RunFailed, StaleLineage, one_line
from dynalign.run_folder import owner

BEAT_S = 5.0
"""Seconds from one sign of life to the next; several fit into `owner.YOUNG_S`."""

_JOIN_S = 60.0


class Heartbeat:
    """A context, in which the thread lives. Neither Ray's start nor a slow answer may make this driver look
    dead.

    every_s: seconds from one beat to the next. clock: Unix seconds.
    """

    def __init__(
        self, mine: owner.Owner, every_s: float = BEAT_S, clock: Callable[[], float] = time.time
    ) -> None:
        self._mine = mine
        self._every_s = every_s
        self._clock = clock
        self._ended = threading.Event()
        self._changing = threading.Lock()
        self._lost: DynalignError | None = None
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def _beat(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                with self._changing:
                    self._mine.beat(self._clock())
            except StaleLineage as lost:
                self._lost = lost
                return
            except (OSError, RecordError) as error:
                # Shared storage fails now and then. Only a silence that others take for death ends the run.
                if self._clock() - self._mine.stamp.beat_s > owner.YOUNG_S:
                    self._lost = RunFailed(f"owner.json cannot be written: {one_line(error)}")
                    return

    def check(self) -> None:
        """Raises StaleLineage when another driver has taken the run over, and RunFailed when the run folder
        takes no more signs of life, or nobody writes them any more."""
        if self._lost is not None:
            raise self._lost
        if not self._thread.is_alive() and not self._ended.is_set():
            raise RunFailed("the thread that writes this driver's signs of life has ended")

    def new_lineage(self) -> int:
        """Begins the next lineage, for a return to a checkpoint. Raises StaleLineage like `check`."""
        with self._changing:
            return self._mine.new_lineage(self._clock())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(_JOIN_S)
