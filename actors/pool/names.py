"""The names of a pool's engines: of their seats, in Ray, and for the judges that ask them."""

from collections.abc import Sequence

from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.judge import FROZEN
from dynalign.configs.sections.judge import POOL as OTHER

POOL = "judge"
"""With which the names of the engines of `judge.pool` begin."""


def ray_name(run: str, seat: str) -> str:
    """The Ray name of whichever engine is in a seat (`judge-0`): a replacement has that of the one before."""
    return f"{run}-{seat}"


def engine_names(run: str, engines: int) -> Sequence[str]:
    """The Ray names of all engines of a run's pool."""
    return [ray_name(run, f"{POOL}-{index}") for index in range(engines)]


def pool_names(run: RunSettings) -> tuple[str, ...]:
    """The names under which the judges of a run may ask its pool; none without a pool."""
    pool = run.judge.pool
    return () if pool is None else (FROZEN if pool.model is None else OTHER,)
