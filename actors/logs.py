"""Log lines that say which run, which actor, and under which policy version: in Ray's worker logs and on the driver's console alike.

    2026-01-31 12:00:00,000 INFO run=quickstart actor=rollout-0 version=1.12 dynalign.actors.worker.rollout_worker: …

So `grep -r 'run=quickstart actor=rollout-0'` over the logs of all nodes is the story of one worker. Libraries only warn.
"""

import logging
import os
from collections.abc import Callable

from dynalign.configs.schema import RunSettings

logger = logging.getLogger(__name__)

_LINE = "%(asctime)s %(levelname)s run=%(run)s actor=%(actor)s version=%(version)s %(name)s: %(message)s"
_OURS = "dynalign"


class _Where(logging.Filter):
    def __init__(self, run: str, actor: str, version: Callable[[], str]) -> None:
        super().__init__()
        self._run, self._actor, self._version = run, actor, version

    def filter(self, record: logging.LogRecord) -> bool:
        record.run, record.actor, record.version = self._run, self._actor, self._version()
        return True


def configure(run: RunSettings, actor: str, version: Callable[[], str] | None = None) -> None:
    """This process's log lines, from now on: our own at `run.log_level`, those of libraries from WARNING on. An actor says where it is.

    :param actor: `coordinator`, `ledger`, `rollout-0`, `learner-0`, `driver`. :param version: the label of the policy version that the
        actor works under at the moment (`dynalign.rollout.weights.version.version_label`), asked at every line; cheap, and never raising. None in
        the driver.
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
