"""Log lines that name the run, the actor and its policy version, in Ray's worker logs and on the driver's
console.

    2026-01-31 12:00:00,000 INFO run=quickstart actor=rollout-0 version=1.12 dynalign.actors.logs: …

`grep -r 'run=quickstart actor=rollout-0'` over the logs of all nodes therefore shows what one worker did.
Libraries log from WARNING on.
"""

import logging
import os
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)

_LINE = "%(asctime)s %(levelname)s run=%(run)s actor=%(actor)s version=%(version)s %(name)s: %(message)s"
_OURS = "dynalign"


class Logged(Protocol):
    """What log lines are of: the settings of a run, or of a pool without one."""

    @property
    def name(self) -> str: ...

    @property
    def log_level(self) -> str: ...


class _Where(logging.Filter):
    def __init__(self, run: str, actor: str, version: Callable[[], str]) -> None:
        super().__init__()
        self._run = run
        self._actor = actor
        self._version = version

    def filter(self, record: logging.LogRecord) -> bool:
        record.run = self._run
        record.actor = self._actor
        record.version = self._version()
        return True


def configure(run: Logged, actor: str, version: Callable[[], str] | None = None) -> None:
    """Sets up this process's log lines: our own from `run.log_level` on, those of libraries from WARNING on.

    actor: `coordinator`, `ledger`, `rollout-0`, `learner-0`, `driver`. version: returns the label of the
    policy version that the actor works under (`version_label`). It is called for every line, so it must be
    cheap and must not raise. None in the driver; other actors log their node and process once.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_LINE))
    handler.addFilter(_Where(run.name, actor, version or (lambda: "-")))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(_OURS).setLevel(run.log_level.upper())
    if version is not None:
        logger.info("on %s, process %d", os.uname().nodename, os.getpid())
