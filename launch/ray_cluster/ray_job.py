"""The submitted Ray job whose entry point this process is.

Its id, its temporary folder, the lines of its log, and how long it may take to stop.
"""

import json
import os
from pathlib import Path
from typing import Any

JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it for the entry point of a submitted job, and for nothing else."""

STOP_WAIT_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
STOP_WAIT_S = 3
"""Ray's default, in seconds."""
_AFTER_STOP_S = 30
"""Seconds for the report and the summary, once the actors have ended."""

_SHOWN = (
    # Lines of our own (actors/logs.py).
    r" run=\S+ actor=\S+ version=",
    # An autoscaler's.
    r"^(Adding|Removing) \d+ node|^Resized to \d|^No available node types can",
    # Ray's, when it has killed something on a node.
    r"due to memory pressure|node running low on memory",
)
_LOG_FILTERS = {"RAY_DEDUP_LOGS_ALLOW_REGEX": "|".join(_SHOWN), "RAY_DEDUP_LOGS_SKIP_REGEX": "^"}
"""Makes Ray forward exactly these lines to the driver, of everything that processes in the cluster print."""


def inside() -> bool:
    """Whether this process is the entry point of a submitted job."""
    return JOB_VARIABLE in os.environ


def submission_id() -> str:
    """`raysubmit_…`, or the id that the user chose; empty outside a job."""
    return str(_job_config().get("metadata", {}).get("job_submission_id", ""))


def lost_with_the_job(named: str, path: Path) -> str | None:
    """The rule that a path breaks because Ray removes what is there after the job; None if it stays.

    named: the path as the user wrote it. path: the same, absolute. Outside a job everything stays.
    """
    if not inside():
        return None
    relative = not Path(named).expanduser().is_absolute()
    uploaded = (_job_config().get("runtime_env") or {}).get("working_dir") or ""
    copied = bool(uploaded) and Path(uploaded).name.removesuffix(".zip") in path.resolve().parts
    if not relative and not copied:
        return None
    what = "is relative, and a Ray job runs" if relative else "lies"
    return f"{what} in a temporary copy of the job's working directory, which goes with the job"


def show_own_lines_only() -> None:
    """Keeps what engines and libraries print, 35 lines per engine and more, out of a job's log.

    Those lines stay in each actor's own log. A filter that the user has set is kept. Call it before Ray is
    imported.
    """
    if inside():
        for variable, pattern in _LOG_FILTERS.items():
            os.environ.setdefault(variable, pattern)


def stop_warning(stop_s: float) -> str | None:
    """A line for the job's log if `ray job stop` would not wait for a checkpoint; None if it does.

    stop_s: how long a checkpoint may take.
    """
    return stop_advice(int(os.environ.get(STOP_WAIT_VARIABLE, STOP_WAIT_S)), stop_s) if inside() else None


def stop_advice(waits_s: int, stop_s: float) -> str | None:
    """The same for a job that Ray kills `waits_s` after asking it to end."""
    if waits_s >= stop_s:
        return None
    wanted = json.dumps({"env_vars": {STOP_WAIT_VARIABLE: str(int(stop_s) + _AFTER_STOP_S)}})
    return (
        f"`ray job stop` kills a job {waits_s} s after it asks it to end, "
        f"and a checkpoint may take {stop_s:g} s (deadlines.stop_s): "
        f"submit it with --runtime-env-json '{wanted}', or stop it with `dynalign stop`, which waits"
    )


def _job_config() -> dict[str, Any]:
    """Ray's description of the job; empty outside one."""
    config: dict[str, Any] = json.loads(os.environ.get(JOB_VARIABLE) or "{}")
    return config
