"""The submitted Ray job that this process is the entry point of: its id, its temporary folder, and how long it may take to stop."""

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
"""For the report and the summary, once the actors have ended."""

_SHOWN = (
    r" run=\S+ actor=\S+ version=",  # actors.logs
    r"^(Adding|Removing) \d+ node|^Resized to \d|^No available node types can",  # an autoscaler
    r"due to memory pressure|node running low on memory",  # Ray, which has killed something on a node
)
_LOG_FILTERS = {"RAY_DEDUP_LOGS_ALLOW_REGEX": "|".join(_SHOWN), "RAY_DEDUP_LOGS_SKIP_REGEX": "^"}
"""Of what is printed in the cluster Ray brings these lines to the driver, each of them, and no other."""


def inside() -> bool:
    return JOB_VARIABLE in os.environ


def submission_id() -> str:
    """`raysubmit_…`, or the id that the user chose; empty outside a job."""
    return str(_told().get("metadata", {}).get("job_submission_id", ""))


def in_working_copy(path: Path) -> bool:
    """Whether a path lies in the copy of the working directory that Ray unpacks for the job and removes after it."""
    uploaded = (_told().get("runtime_env") or {}).get("working_dir") or ""
    return bool(uploaded) and Path(uploaded).name.removesuffix(".zip") in path.resolve().parts


def show_own_lines_only() -> None:
    """Keeps what engines and libraries print out of a job's log, 35 lines per engine and more: it stays in each actor's own log. Has to be
    called before Ray is imported; whoever has set a filter keeps it."""
    if inside():
        for variable, pattern in _LOG_FILTERS.items():
            os.environ.setdefault(variable, pattern)


def stop_warning(stop_s: float) -> str | None:
    """A line for the job's log when `ray job stop` would not wait for a checkpoint, which may take `stop_s`; None where it does."""
    return stop_advice(int(os.environ.get(STOP_WAIT_VARIABLE, STOP_WAIT_S)), stop_s) if inside() else None


def stop_advice(waits_s: int, stop_s: float) -> str | None:
    """The same for a job that Ray kills `waits_s` after it has asked it to end."""
    if waits_s >= stop_s:
        return None
    wanted = json.dumps({"env_vars": {STOP_WAIT_VARIABLE: str(int(stop_s) + _AFTER_STOP_S)}})
    return (
        f"`ray job stop` kills a job {waits_s} s after it asks it to end, and a checkpoint may take {stop_s:g} s (deadlines.stop_s): "
        f"submit it with --runtime-env-json '{wanted}', or stop it with `dynalign stop`, which waits"
    )


def _told() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(os.environ.get(JOB_VARIABLE) or "{}")
    return told
