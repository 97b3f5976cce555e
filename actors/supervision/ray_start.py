"""Joining or starting Ray: whatever Ray raises is one error with its cause."""

from collections.abc import Callable

from dynalign.configs.errors import RunFailed


def started_or_failed(init: Callable[[], object], where: str) -> None:
    """Calls `ray.init`. where: a sentence's beginning, as in "Ray does not start in this machine".

    Raises RunFailed with Ray's own first line. Ray raises anything here, a bare Exception too: a raylet that
    does not come up in time is one.
    """
    try:
        init()
    except Exception as error:
        cause = str(error.__cause__ or error).strip() or type(error).__name__
        raise RunFailed(f"{where}: {cause.splitlines()[0]}") from error
