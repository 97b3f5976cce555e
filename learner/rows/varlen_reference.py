"""What torch's `varlen_attn` documents, in plain products, one sequence after the other.

A kernel is compared with it, and it stands in for the kernel where there is no GPU.
"""

from itertools import pairwise

import torch
from torch import Tensor


def reference_varlen(
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
    """Return the attention [S, h, d], as `varlen.VarlenKernel` says, computed in float32 at least.

    Raises ValueError for lengths that a GPU's kernel would read or leave out without a word.
    """
    ends_q = cu_seq_q.tolist()
    ends_k = cu_seq_k.tolist()
    lengths = [[end - start for start, end in pairwise(ends)] for ends in (ends_q, ends_k)]
    promised = (len(query), len(key), max_q, max_k)
    if promised != (ends_q[-1], ends_k[-1], *map(max, lengths)) or ends_q[0] or ends_k[0]:
        raise ValueError(f"sequences of {lengths[0]} and {lengths[1]} are not what was promised: {promised}")
    heads = query.shape[1] // key.shape[1]
    if heads * key.shape[1] != query.shape[1] or (heads > 1) != enable_gqa:
        raise ValueError(f"{query.shape[1]} query heads, {key.shape[1]} of keys, enable_gqa={enable_gqa}")
    wide = torch.promote_types(query.dtype, torch.float32)
    outputs = []
    for of_query, of_key in zip(pairwise(ends_q), pairwise(ends_k), strict=True):
        query_hqd = query[slice(*of_query)].transpose(0, 1).to(wide)
        key_hkd, value_hkd = (
            whole[slice(*of_key)].transpose(0, 1).to(wide).repeat_interleave(heads, 0)
            for whole in (key, value)
        )
        visible_qk = _visible(query_hqd.shape[1], key_hkd.shape[1], window_size)
        scores_hqk = (scale * query_hqd @ key_hkd.mT).masked_fill(~visible_qk.to(query.device), -torch.inf)
        outputs.append((scores_hqk.softmax(-1) @ value_hkd).transpose(0, 1))
    return torch.cat(outputs).to(query.dtype)


def _visible(queries: int, keys: int, window_size: tuple[int, int]) -> Tensor:
    """Return which keys each query sees [q, k]; the last query stands at the last key."""
    before, behind = window_size
    distance_qk = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)
    seen = torch.ones(queries, keys, dtype=torch.bool)
    if before >= 0:
        seen &= distance_qk <= before
    if behind >= 0:
        seen &= distance_qk >= -behind
    return seen
