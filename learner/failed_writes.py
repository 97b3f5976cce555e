"""A write that fails on one rank becomes the same error on all ranks.

If the rank raised at once, the others would wait for it in the next collective. So it records the failure and
takes part in the remaining collectives; at the end all ranks raise the same error, or none does.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from safetensors import SafetensorError

from dynalign.configs.errors import CheckpointError, one_line

_STORAGE: tuple[type[Exception], ...] = (OSError, SafetensorError)


class FailedWrites:
    """The first failed write of this rank since the last `raise_on_all`."""

    def __init__(self) -> None:
        self._first: str | None = None

    @contextmanager
    def kept(self, *more: type[Exception]) -> Iterator[None]:
        """Record an error of the storage, or one of the classes `more`, instead of raising it.

        Put no collective inside: its errors must be raised.
        """
        try:
            yield
        except (*_STORAGE, *more) as error:
            # torch wraps the system's error in one of its own
            cause = error.__context__ if isinstance(error.__context__, OSError) else error
            # as text, since a traceback would keep the failed file open
            self._first = self._first or one_line(cause)

    def raise_on_all(self) -> None:
        """Raise CheckpointError on all ranks, with the failure of the lowest rank that has one.
        Collective."""
        mine = self._first
        self._first = None
        everyone: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, mine)
        for rank, failure in enumerate(everyone):
            if failure is not None:
                raise CheckpointError(f"learner rank {rank}: {failure}" if len(everyone) > 1 else failure)
