"""`dynalign train`: from a resolved configuration to an ended run.

    refuse what can be refused ─► own the run folder ─► one attempt at the run (`attempt.py`):
      cluster ─► supervision: actors start side by side, and are replaced (actors/supervision/supervisor.py)
      watch: every second, progress, requests and signals; any actor's end is an event
      end: every process gone, then summary and report (`closing.py`)
    beat, meanwhile: every few seconds, from a thread of its own, a sign of life in owner.json
    (`heartbeat.py`)

Ctrl-C, SIGTERM or SIGHUP once: no more leases, the step under way is finished and a checkpoint is written,
within `deadlines.stop_s`; the run can be continued. Twice: the run ends at once.
"""

import time
from contextlib import suppress

from dynalign.actors import logs
from dynalign.configs.errors import StaleLineage
from dynalign.configs.load import LoadedRun
from dynalign.launch.attempt import Attempt
from dynalign.launch.heartbeat import Heartbeat
from dynalign.launch.interrupts import Interrupts
from dynalign.launch.preflight import preflight
from dynalign.launch.ray_cluster import ray_job
from dynalign.launch.ray_cluster.connection import reach
from dynalign.launch.resume import mirrored
from dynalign.launch.resume.open_run import open_run
from dynalign.launch.summary import summary_lines
from dynalign.run_folder import layout, owner, requests, value_texts
from dynalign.run_folder.checkpoint import verify
from dynalign.run_folder.layout import step_folder


def train(loaded: LoadedRun) -> int:
    """Runs to the end, or continues an interrupted run.

    Returns the exit code: 0 finished, or stopped by `dynalign stop`; 1 failed, or stopped by an alarm; 130
    interrupted by a signal, with a checkpoint.

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
        # Every byte: the learner unpickles them.
        verify(step_folder(folder.path / layout.CHECKPOINTS, ready.checkpoint.step))
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
            texts = ready.texts
            value_texts.keep(folder.path, texts.definition_hash, texts.definition_parts)
            value_texts.keep(folder.path, texts.rubric_hash, texts.rubric_parts)
            with mirrored.kept(ready.mirrored, dated.settings, folder.path, mine) as mirror:
                return Attempt(
                    dated.settings, folder.path, mine.lineage, ready, interrupts, heart, mirror
                ).run()
    finally:
        with suppress(StaleLineage):  # the run is another driver's by now
            mine.release(time.time())
        interrupts.restore()
