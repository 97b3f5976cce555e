"""A write that fails on one rank becomes the same error on all ranks.

If the rank raised at once, the others would wait for it in the next collective. So it records the failure and
takes part in the remaining collectives; at the end all ranks raise the same error, or none does. The text
travels as bytes in a tensor: torch's collectives of objects unpickle what any process in the group has sent.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from safetensors import SafetensorError

from dynalign.configs.errors import CheckpointError, one_line

_TEXT_BYTES = 1024
"""Longest text of a failure that the other ranks get, in bytes; a shorter one is padded with zeros."""
_STORAGE: tuple[type[Exception], ...] = (OSError, SafetensorError)


class FailedWrites:
    """The first failed write of this rank since the last `raise_on_all`."""

    def __init__(self, device: torch.device) -> None:
        """device: where the collectives of this group work."""
        self._device = device
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
        mine = _packed(self._first or "").to(self._device)
        self._first = None
        everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(everyone, mine)
        for rank, failure in enumerate(map(_text, everyone)):
            if failure:
                raise CheckpointError(f"learner rank {rank}: {failure}" if len(everyone) > 1 else failure)


def _packed(text: str) -> torch.Tensor:
    cut = text.encode()[:_TEXT_BYTES]
    return torch.tensor(list(cut.ljust(_TEXT_BYTES, b"\0")), dtype=torch.uint8)


def _text(packed: torch.Tensor) -> str:
    return bytes(packed.tolist()).rstrip(b"\0").decode(errors="replace")
