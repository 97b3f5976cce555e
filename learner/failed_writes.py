"""A write that fails at one rank, told to all ranks.

A rank that raised at once would leave the others waiting for it in the next collective. So it keeps the failure, goes on into the
collectives, and at the end all ranks raise the same error, or none does.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from safetensors import SafetensorError

from dynalign.configs.errors import CheckpointError, one_line

_STORAGE: tuple[type[Exception], ...] = (OSError, SafetensorError)


class FailedWrites:
    """The first write that this rank could not do since `raise_on_all`."""

    def __init__(self) -> None:
        self._first: str | None = None

    @contextmanager
    def kept(self, *more: type[Exception]) -> Iterator[None]:
        """Keeps what the storage refuses, and `more`, instead of raising it. Not for what a collective raises, which must be heard of."""
        try:
            yield
        except (*_STORAGE, *more) as error:
            cause = (
                error.__context__ if isinstance(error.__context__, OSError) else error
            )  # torch wraps it in words of its own
            self._first = self._first or one_line(
                cause
            )  # text: a traceback would hold the file open that failed

    def raise_on_all(self) -> None:
        """Collective. Raises CheckpointError, on all ranks, with the failure of the lowest rank that has one."""
        mine, self._first = self._first, None
        everyone: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, mine)
        for rank, failure in enumerate(everyone):
            if failure is not None:
                raise CheckpointError(f"learner rank {rank}: {failure}" if len(everyone) > 1 else failure)
