"""Which attention the one call for a row does not take. Plain Python: the plan says it before a run."""

WIDEST_HEAD = 256
"""Of flash attention's kernels, forward and backward (torch's flash_api.cpp)."""
HEAD_MULTIPLE = 8
"""Numbers of a head that its kernels load at once. Torch's call with lengths does not pad."""


def varlen_lacks(head: int, sinks: bool) -> str:
    """Return what torch's call with lengths does not take of a model's attention, in words; empty if nothing.

    Such attention is computed by a call for each part of a row.

    head: width of a head. sinks: whether each head has one more logit (attention sinks, arXiv 2309.17453).
    """
    if sinks:
        return "attention sinks"
    if head > WIDEST_HEAD or head % HEAD_MULTIPLE:
        return f"heads of {head} numbers (it takes multiples of {HEAD_MULTIPLE} up to {WIDEST_HEAD})"
    return ""
