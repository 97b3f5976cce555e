"""`dynalign status`, `pause`, `resume`, `stop`, `scale`: a word with the driver of a run, from any shell
that reaches the run folder.

    driver   writes status.json at every look, and takes requests                (launch/driver.py) status
    reads status.json; a run that has ended shows its summary others   leave stop.request (…) and wait until
    the driver has taken it; scale.request holds the wanted number of workers

Files instead of a connection: they need no token of the cluster, answer at once, and work when the cluster
is not reached. A shell that has RAY_ADDRESS and no such folder asks the coordinator itself.
"""

import os
import time
from pathlib import Path
from typing import Any

from dynalign.configs.errors import DeadlineExceeded, Mistake, UserError
from dynalign.launch.resume.open_run import find_run
from dynalign.launch.summary import read_summary, summary_lines
from dynalign.run_folder import layout, owner, requests
from dynalign.run_folder.requests import Request, RequestKind
from dynalign.run_folder.run_status import RunStatus, SupervisionStatus

MOST_WORKERS = 900  # as rollout.workers.max
_ANSWERS: dict[RequestKind, str] = {
    "pause": "pauses after the step under way",
    "resume": "goes on",
    "stop": "stops after the step under way, with a checkpoint",
    "scale": "its rollout side goes to the wanted number of workers",
}
_TAKEN_DEADLINE_S = 60.0  # the driver looks every second, but a call to an actor may hold it up


def scale(run: str, runs: str, workers: int) -> int:
    """Asks for a number of rollout workers.

    Raises UserError for a number out of range, a run that is unknown or has ended, or one that is still on
    its way to another number.
    """
    folder = _folder(run, runs)
    if folder is not None and not _goes_on(folder):
        raise _not_running(run)
    told: RunStatus | None = _ask_cluster(run, "status") if folder is None else requests.read_status(folder)
    known = SupervisionStatus() if told is None else told.supervision
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
    """Prints one line per fact; for a run that has ended, its summary. Raises UserError for an unknown
    run."""
    folder = _folder(run, runs)
    told: RunStatus | None
    if folder is None:
        told = _ask_cluster(run, "status")
    elif not _goes_on(folder) or not (folder / layout.STATUS).exists():
        summary = read_summary(folder)
        lines = (
            summary_lines(summary)
            if summary
            else [f"run {run} was interrupted before its first step; `dynalign train` continues it"]
        )
        print("\n".join(lines))
        return 0
    else:
        told = requests.read_status(folder)
    if told is None:
        print(f"run {run} starting")
        return 0
    ledger = told.ledger
    row = told.metrics or {}
    supervision = told.supervision
    print(f"run {run} {told.state}: step {told.step} of {told.steps}, lineage {told.lineage}")
    print(f"now: {told.phase or 'between two steps'}; {told.waiting_for}")
    terms = " + ".join(
        f"{term} {ledger[term]}" for term in ("pending", "leased", "scored", "trained", "withheld")
    )
    print(f"issued {ledger['issued']} = {terms}")
    if row.get("reward_mean") is not None:
        print(
            f"reward {row['reward_mean']:.3f}, step {row['step_s']:.1f} s, oldest trained token {row['staleness_max']} versions"
        )
    for worker in supervision.workers:
        held = f"version {worker.version}, {worker.groups_in_flight} groups in flight"
        print(f"{worker.name}: {worker.state}, {held}")
    if told.metrics_address:
        print(f"metrics: http://{told.metrics_address}/metrics")
    print(f"workers wanted: {supervision.workers_wanted} ({supervision.why_wanted})")
    if told.pool.now:
        print(f"sizing after the last step: {told.pool.now}")
    if (mirror := supervision.mirror) is not None:
        problem = f"; {mirror.problem}" if mirror.problem else ""
        print(f"mirror {mirror.place}: step {mirror.step or 'none yet'}{problem}")
    if supervision.restarts:
        counts = (f"{what} {count}" for what, count in sorted(supervision.restarts.items()))
        print("restarts: " + ", ".join(counts))
    return 0


def ask(run: str, runs: str, what: RequestKind, workers: int = 0) -> int:
    """Leaves a request and waits until the driver has taken it.

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
    """The run's folder; None where a cluster is named that may know the run instead."""
    try:
        return find_run(run, runs)
    except UserError:
        if not os.environ.get("RAY_ADDRESS"):
            raise
        return None


def _ask_cluster(run: str, method: str, *arguments: object) -> Any:
    from dynalign.launch.commands import (
        remote_control,
    )

    return remote_control.call(run, method, *arguments)


def _goes_on(folder: Path) -> bool:
    stamp = owner.read(folder)
    return stamp is not None and stamp.state == "running" and time.time() - stamp.beat_s < owner.YOUNG_S
