"""Attention over a packed row: each completion attends to its own prompt and to itself.

No mask of the whole row is built.

It is registered with transformers' `AttentionInterface`, so every architecture that uses this interface can
be packed. One layer on a row with layout ((p, a, b), (q, c)), as queries → keys:

    p → p        a → p a        b → p b        q → q        c → q c        (each causal, aligned at the end)

There are two forms: torch's fused kernel once for each part (`learner.attention=sdpa`), or once for the row
(`varlen`, in `varlen.py`).

Axes: h heads, S tokens of the row, q queries, k keys, d head size.
"""

import torch
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface

from dynalign.learner.rows.rows import Layout
from dynalign.learner.rows.varlen import VarlenRow
from dynalign.learner.rows.varlen_limits import varlen_lacks

PACKED = "dynalign_packed"
"""The name of this attention in transformers."""


def _visible(queries: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """Return a bool mask [queries, keys]: causal, the last query at the last key, at most `window` tokens
    back.
    """
    ones = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
    return ones if window is None else ones.triu(keys - queries - window + 1)


def _attend(
    query_hqd: Tensor,
    key_hkd: Tensor,
    value_hkd: Tensor,
    scaling: float,
    window: int | None,
    sinks_h: Tensor | None,
) -> Tensor:
    """Return the causal attention of the last q of k positions.

    sinks_h: one more logit per head, which takes probability and adds no value (attention sinks, arXiv
    2309.17453).
    """
    queries = query_hqd.shape[-2]
    keys = key_hkd.shape[-2]
    window = None if window is None or window >= keys else window
    if window is None and sinks_h is None:
        bias = causal_lower_right(queries, keys)
        return scaled_dot_product_attention(
            query_hqd, key_hkd, value_hkd, attn_mask=bias, scale=scaling, enable_gqa=True
        )
    visible_qk = _visible(queries, keys, window, query_hqd.device)
    if sinks_h is None:
        return scaled_dot_product_attention(
            query_hqd, key_hkd, value_hkd, attn_mask=visible_qk, scale=scaling, enable_gqa=True
        )
    # A sink is a key of zeros with its own bias, and a value of zeros.
    bias_qk = torch.zeros_like(visible_qk, dtype=query_hqd.dtype).masked_fill(~visible_qk, -torch.inf)
    heads = query_hqd.shape[1]
    sinks_hq1 = sinks_h.to(bias_qk.dtype).view(1, heads, 1, 1).expand(-1, -1, queries, 1)
    bias_hqk = torch.cat([bias_qk.expand(1, heads, -1, -1), sinks_hq1], -1)
    key_hkd = pad(key_hkd, (0, 0, 0, 1))
    value_hkd = pad(value_hkd, (0, 0, 0, 1))
    return scaled_dot_product_attention(
        query_hqd, key_hkd, value_hkd, attn_mask=bias_hqk, scale=scaling, enable_gqa=True
    )


def packed_attention(
    module: nn.Module,
    query_1hSd: Tensor,
    key_1hSd: Tensor,
    value_1hSd: Tensor,
    attention_mask: None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    softcap: float | None = None,
    layout: Layout = (),
    varlen: VarlenRow | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Compute one layer's attention with the signature that transformers expects; return ([1, S, heads, d],
    None).

    Dropout is never applied: the ratio compares the policy with itself, so both must compute the same
    function.

    sliding_window: most tokens that a query sees, itself included. s_aux: attention sinks, one per head.
    layout: the parts of the row in order; the lengths add up to S. Empty: the row is one sequence.
    varlen: the same row for one call; None, or attention that `varlen_lacks`: a call for each part.

    Raises NotImplementedError if the architecture caps its attention logits, which no fused kernel supports.
    """
    if softcap is not None:
        raise NotImplementedError("attention logits with a soft cap")
    dtype = query_1hSd.dtype
    head = query_1hSd.shape[-1]
    scaling = head**-0.5 if scaling is None else scaling
    same_width = value_1hSd.shape[-1] == head
    if varlen is not None and same_width and not varlen_lacks(head, s_aux is not None):
        return varlen.attend(query_1hSd, key_1hSd, value_1hSd, scaling, sliding_window), None
    if query_1hSd.device.type == "cpu":
        # On a CPU torch's bfloat16 kernel is 2 to 3 times slower than its float32 kernel.
        wide = torch.promote_types(dtype, torch.float32)
        query_1hSd = query_1hSd.to(wide)
        key_1hSd = key_1hSd.to(wide)
        value_1hSd = value_1hSd.to(wide)
    lengths = layout or ((query_1hSd.shape[2],),)
    flat = [length for prompt in lengths for length in prompt]
    queries, keys, values = (torch.split(whole, flat, dim=2) for whole in (query_1hSd, key_1hSd, value_1hSd))
    parts: list[Tensor] = []
    for prompt in lengths:
        here = len(parts)
        for part in range(here, here + len(prompt)):
            key = keys[here] if part == here else torch.cat([keys[here], keys[part]], 2)
            value = values[here] if part == here else torch.cat([values[here], values[part]], 2)
            if flat[part]:
                parts.append(_attend(queries[part], key, value, scaling, sliding_window, s_aux))
            else:  # a completion of one token has no input token
                parts.append(queries[part].new_zeros(1, queries[part].shape[1], 0, value.shape[-1]))
    return torch.cat(parts, 2).to(dtype).transpose(1, 2), None


AttentionInterface.register(PACKED, packed_attention)
