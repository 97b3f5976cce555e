"""Attention over a whole packed row in one call of torch's `varlen_attn`: flash attention (arXiv 2307.08691)
with lengths.

The kernel is a parameter. Torch has it for GPUs alone, in bfloat16 and float16. On CPUs a reference stands in
for it, so that all that surrounds it is proved there.

Axes: h heads, S tokens of the row, K keys with prompts repeated, N sequences, d head size.
"""

from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynalign.learner.rows.rows import Layout
from dynalign.learner.rows.sequences import sequences_of


class VarlenKernel(Protocol):
    """What is used of `torch.nn.attention.varlen.varlen_attn`."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        scale: float,
        window_size: tuple[int, int],
        enable_gqa: bool,
    ) -> Tensor:
        """Return the attention [S, h, d] of N sequences, the last query of each at its last key.

        query: [S, h, d]. key, value: [K, key-value heads, d]. cu_seq_q, cu_seq_k: [N + 1], int32, 0 and where
        each sequence ends. window_size: how many keys before and behind its own a query sees; -1: all.
        """
        ...


def torch_kernel() -> VarlenKernel:
    """Return torch's own. Raises ImportError for a torch that has none."""
    from torch.nn.attention.varlen import varlen_attn

    return cast(VarlenKernel, varlen_attn)


@dataclass(frozen=True)
class VarlenRow:
    """The sequences of one row on its device, the same for every layer, and the kernel that takes them.

    Example: ``VarlenRow.of(((2, 1, 3), (4,)), torch_kernel(), torch.device("cuda", 0))``.
    """

    kernel: VarlenKernel
    """Computes the attention."""
    query_ends_N1: Tensor
    """As in `RowSequences`, on the device."""
    key_ends_N1: Tensor
    """As in `RowSequences`, on the device."""
    keys_K: Tensor | None
    """As in `RowSequences`, on the device."""
    longest_queries: int
    """As in `RowSequences`."""
    longest_keys: int
    """As in `RowSequences`."""

    @staticmethod
    def of(layout: Layout, kernel: VarlenKernel, device: torch.device) -> "VarlenRow | None":
        """Return the row of a layout; nothing waits for the device.

        None for a row of single tokens: for these the kernel has a form whose gradient nothing promises.
        """
        planned = sequences_of(layout)
        if planned.longest_queries == 1:
            return None

        def sent(values: NDArray[np.integer]) -> Tensor:
            return torch.from_numpy(values).to(device, non_blocking=True)

        return VarlenRow(
            kernel,
            sent(planned.query_ends_N1),
            sent(planned.key_ends_N1),
            None if planned.keys_K is None else sent(planned.keys_K),
            planned.longest_queries,
            planned.longest_keys,
        )

    def attend(
        self, query_1hSd: Tensor, key_1hSd: Tensor, value_1hSd: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """Return one layer's attention [1, S, h, d].

        window: most tokens that a query sees, itself included.
        """
        query_Shd = query_1hSd[0].transpose(0, 1)
        key_Khd = self._keys(key_1hSd[0].transpose(0, 1))
        value_Khd = self._keys(value_1hSd[0].transpose(0, 1))
        return self.kernel(
            query_Shd,
            key_Khd,
            value_Khd,
            self.query_ends_N1,
            self.key_ends_N1,
            self.longest_queries,
            self.longest_keys,
            scale=scaling,
            window_size=(-1 if window is None else window - 1, 0),
            enable_gqa=query_Shd.shape[1] != key_Khd.shape[1],
        )[None]

    def _keys(self, whole_Shd: Tensor) -> Tensor:
        """Return the rows of `keys_K`.

        The gradient of a prompt is a sum over its completions. It is taken in float32, which rounds once, and
        which GPUs can add to memory at full speed.
        """
        if self.keys_K is None:
            return whole_Shd
        wide = whole_Shd.to(torch.promote_types(whole_Shd.dtype, torch.float32))
        return wide.index_select(0, self.keys_K).to(whole_Shd.dtype)
