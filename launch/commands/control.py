"""`dynalign status`, `pause`, `resume`, `stop`, `scale`: from any shell that reaches the run folder.

    driver   writes status.json about once a second, and takes requests                (launch/driver.py)
    status   reads status.json; for a run that has ended, its summary
    others   write stop.request (…) and wait until the driver has taken it; scale.request holds a number

Files instead of a connection: they need no token of the cluster, answer at once, and work when the cluster
cannot be reached. A shell that has RAY_ADDRESS and not the folder asks the coordinator itself
(remote_control.py).
"""

import os
import shlex
import time
from pathlib import Path
from typing import Any

from dynalign.configs.errors import DeadlineExceeded, Mistake, UserError
from dynalign.configs.sections.rollout import MOST_WORKERS
from dynalign.launch.resume.open_run import find_run
from dynalign.launch.summary import duration, read_summary, summary_lines
from dynalign.run_folder import layout, owner, requests
from dynalign.run_folder.checkpoint import whole
from dynalign.run_folder.requests import Request, RequestKind
from dynalign.run_folder.run_status import RunStatus, SupervisionStatus

_ANSWERS: dict[RequestKind, str] = {
    "pause": "pauses after the step under way",
    "resume": "goes on",
    "stop": "stops after the step under way, with a checkpoint",
    "scale": "its rollout side goes to the wanted number of workers",
}
_TAKEN_DEADLINE_S = 60.0
"""The driver looks for requests every second, but a call to an actor may delay it."""


def scale(run: str, runs: str, workers: int) -> int:
    """Asks for a number of rollout workers.

    Raises UserError for a number out of range, a run that is unknown or has ended, or one that is still
    being scaled.
    """
    folder = _folder(run, runs)
    if folder is not None and not _goes_on(folder):
        raise _not_running(run)
    status: RunStatus | None = _ask_cluster(run, "status") if folder is None else requests.read_status(folder)
    known = SupervisionStatus() if status is None else status.supervision
    least, most = known.workers_range or (1, MOST_WORKERS)
    mistakes = []
    if not least <= workers <= most:
        remedy = f"run {run} wants {known.workers_wanted or least} at the moment"
        mistakes.append(Mistake("workers", workers, f"must be from {least} to {most}", remedy))
    if known.settling or (folder is not None and layout.request_file(folder, "scale").exists()):
        rule = f"is still on its way to {known.workers_wanted} workers"
        mistakes.append(Mistake("run", run, rule, f"wait until `dynalign status {run}` shows them serving"))
    if mistakes:
        raise UserError(mistakes)
    return ask(run, runs, "scale", workers)


def status(run: str, runs: str) -> int:
    """Prints one line per fact; for a run that has ended, its summary.

    Raises UserError for an unknown run.
    """
    folder = _folder(run, runs)
    if folder is None:
        lines = status_lines(run, _ask_cluster(run, "status"))
    else:
        lines = _folder_lines(run, folder, time.time())
    print("\n".join(lines))
    return 0


def _folder_lines(run: str, folder: Path, now_s: float) -> list[str]:
    """The lines of a run whose folder is here. now_s: Unix seconds."""
    stamp = owner.read(folder)
    if stamp is not None and stamp.state == "running":
        status = requests.read_status(folder)
        if not owner.lives(stamp, now_s):
            return _silent_lines(run, folder, stamp, status, now_s)
        return [f"run {run} starting"] if status is None else status_lines(run, status)
    summary = read_summary(folder)
    if summary is not None:
        return summary_lines(summary)
    return [f"run {run} was interrupted before its first step; {_continuing(folder)}"]


def _silent_lines(
    run: str, folder: Path, stamp: owner.Stamp, status: RunStatus | None, now_s: float
) -> list[str]:
    """The lines of a run whose driver ended without a word: killed, or with its machine."""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stamp.beat_s))
    ago = duration(max(0.0, now_s - stamp.beat_s))
    driver = f"its driver, process {stamp.pid} on {stamp.host}"
    lines = [f"run {run} interrupted: no sign of life of {driver}, since {since}, {ago} ago"]
    if status is not None:
        lines.append(f"it was {status.state}: step {status.step} of {status.steps}, lineage {status.lineage}")
    newest = next(iter(whole(folder / layout.CHECKPOINTS).values()), None)
    lines.append(f"checkpoint: {newest or 'none yet, so that it begins with step 1'}")
    return [*lines, _continuing(folder)]


def _continuing(folder: Path) -> str:
    """The command that goes on with the run, in words."""
    command = ["dynalign", "train", str(folder / layout.CONFIG), f"runs={folder.parent}"]
    return f"`{shlex.join(command)}` continues it"


def status_lines(run: str, status: RunStatus) -> list[str]:
    """The lines of a run that is going on."""
    ledger = status.ledger
    row = status.metrics or {}
    supervision = status.supervision
    terms = ("pending", "leased", "scored", "trained", "withheld")
    lines = [
        f"run {run} {status.state}: step {status.step} of {status.steps}, lineage {status.lineage}",
        f"now: {status.phase or 'between two steps'}; {status.waiting_for}",
        f"issued {ledger['issued']} = " + " + ".join(f"{term} {ledger[term]}" for term in terms),
    ]
    if row.get("reward_mean") is not None:
        oldest = f"oldest trained token {row['staleness_max']} versions"
        lines.append(f"reward {row['reward_mean']:.3f}, step {row['step_s']:.1f} s, {oldest}")
    for worker in supervision.workers:
        in_flight = f"{worker.groups_in_flight} groups in flight"
        lines.append(f"{worker.name}: {worker.state}, version {worker.version}, {in_flight}")
    lines += [f"{engine.name}: {engine.state}" for engine in supervision.engines]
    lines += [f"endpoint {each.name}: {each.account}" for each in supervision.endpoints]
    if status.metrics_address:
        lines.append(f"metrics: http://{status.metrics_address}/metrics")
    lines.append(f"workers wanted: {supervision.workers_wanted} ({supervision.why_wanted})")
    lines += [f"alarm {alarm.name} since step {alarm.fired_step}: {alarm.words}" for alarm in status.alarms]
    if status.pool.now:
        lines.append(f"sizing after the last step: {status.pool.now}")
    if (mirror := supervision.mirror) is not None:
        problem = f"; {mirror.problem}" if mirror.problem else ""
        lines.append(f"mirror {mirror.address}: step {mirror.step or 'none yet'}{problem}")
    if supervision.restarts:
        counts = ", ".join(f"{what} {count}" for what, count in sorted(supervision.restarts.items()))
        lines.append(f"restarts: {counts}")
    return lines


def ask(run: str, runs: str, what: RequestKind, workers: int = 0) -> int:
    """Writes a request and waits until the driver has taken it.

    Raises UserError for a run that is unknown or has ended, DeadlineExceeded when its driver does not take
    the request.
    """
    folder = _folder(run, runs)
    if folder is None:
        _ask_cluster(run, "control", what, workers)
    else:
        _leave_request(run, folder, what, workers)
    print(f"run {run}: {_ANSWERS[what]}")
    return 0


def _leave_request(run: str, folder: Path, what: RequestKind, workers: int) -> None:
    if not _goes_on(folder):
        raise _not_running(run)
    request = requests.leave(folder, Request(what, workers))
    until_s = time.monotonic() + _TAKEN_DEADLINE_S
    while request.exists():
        if time.monotonic() > until_s:
            request.unlink(missing_ok=True)
            raise DeadlineExceeded(f"the driver of run {run} to take the request", _TAKEN_DEADLINE_S)
        time.sleep(0.2)


def _not_running(run: str) -> UserError:
    return UserError([Mistake("run", run, "is not running", f"see `dynalign status {run}`")])


def _folder(run: str, runs: str) -> Path | None:
    """The run's folder; None if it is not here and RAY_ADDRESS names a cluster that may know the run."""
    try:
        return find_run(run, runs)
    except UserError:
        if not os.environ.get("RAY_ADDRESS"):
            raise
        return None


def _ask_cluster(run: str, method: str, *arguments: object) -> Any:
    from dynalign.launch.commands import remote_control  # imports Ray

    return remote_control.call(run, method, *arguments)


def _goes_on(folder: Path) -> bool:
    """Whether a living driver owns the run."""
    stamp = owner.read(folder)
    return stamp is not None and owner.lives(stamp, time.time())
