"""Signals that ask a run to end: counted, so that they break no line that is running."""

import signal
import time
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, `kill`, and a terminal that closes. All three mean the same: end with a checkpoint."""


class Interrupts:
    """Counts signals from its creation to `restore`. `first_s`: when the first one came (seconds,
    monotonic)."""

    def __init__(self) -> None:
        self.count = 0
        self.first_s: float | None = None
        self._before: dict[signal.Signals, Any] = {}
        self.listen()

    def listen(self) -> None:
        """Takes the signals over. Again after `ray.init`, which has SIGTERM end the process within seconds.

        A signal that is ignored stays so: a command under `nohup` outlives its terminal.
        """
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before.setdefault(number, signal.signal(number, self._note))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.first_s = time.monotonic() if self.first_s is None else self.first_s

    def restore(self) -> None:
        """Leaves the signals to whoever had them before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
