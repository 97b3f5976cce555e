"""The names of a pool's engines: of their seats, and in Ray."""

from collections.abc import Sequence

POOL = "judge"
"""With which the names of the engines of `judge.pool` begin."""


def ray_name(run: str, seat: str) -> str:
    """The Ray name of whichever engine is in a seat (`judge-0`): a replacement has that of the one before."""
    return f"{run}-{seat}"


def engine_names(run: str, engines: int) -> Sequence[str]:
    """The Ray names of all engines of a run's pool."""
    return [ray_name(run, f"{POOL}-{index}") for index in range(engines)]
