"""Decides which sequences share a row (micro-batch), and which rank computes it.

Every rank calls `pack` with the lengths of the whole optimizer step and gets the same plan, so the ranks need
no collective to agree. Every rank has the same number of rows, so no rank enters a collective alone.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from heapq import heappop, heappush, heapreplace
from itertools import pairwise

LINEAR_TOKENS = 8192
"""The sequence length at which attention costs as much as everything else: 12 × hidden size, for a hidden
size near 700. It affects only how well ranks are balanced: for a larger model the balance is slightly
worse."""


def _cost(length: int) -> int:
    """Return the relative cost of a sequence of `length` tokens: a quadratic term for attention, a linear one
    for the rest.
    """
    return length * (length + LINEAR_TOKENS)


def _best_fit(lengths_N: Sequence[int], longest_first: Sequence[int], token_budget: int) -> list[list[int]]:
    """Use few rows: each sequence goes to the fullest row that still has space for it.

    Best fit decreasing needs at most 11/9 of the fewest possible rows, plus a constant (Johnson, 1974).
    """
    rows: list[list[int]] = []
    free_rows: list[tuple[int, int]] = []  # (free tokens, row), sorted
    for sequence in longest_first:
        length = lengths_N[sequence]
        fit = bisect_left(free_rows, (length, -1))
        if fit == len(free_rows):
            free = token_budget
            row = len(rows)
            rows.append([])
        else:
            free, row = free_rows.pop(fit)
        rows[row].append(sequence)
        insort(free_rows, (free - length, row))
    return rows


def _spread(
    lengths_N: Sequence[int], longest_first: Sequence[int], token_budget: int, row_count: int
) -> list[list[int]] | None:
    """Fill rows evenly: each sequence goes to the cheapest row that has space for it.

    Return None if one fits nowhere.
    """
    rows: list[list[int]] = [[] for _ in range(row_count)]
    cheapest = [(0, row, token_budget) for row in range(row_count)]  # (cost, row, free tokens), a heap
    for sequence in longest_first:
        length = lengths_N[sequence]
        too_full = []
        while cheapest and cheapest[0][2] < length:
            too_full.append(heappop(cheapest))
        if not cheapest:
            return None
        cost, row, free = cheapest[0]
        heapreplace(cheapest, (cost + _cost(length), row, free - length))
        rows[row].append(sequence)
        for entry in too_full:
            heappush(cheapest, entry)
    return rows


def pack(lengths_N: Sequence[int], token_budget: int, ranks: int) -> list[list[list[int]]]:
    """Return the rows of each rank, each a list of indices into `lengths_N`; every index occurs exactly once.

    Every rank gets the same number of rows: as many as best fit decreasing needs, rounded up to a multiple of
    `ranks`, filled evenly. Costs fall from a rank's first row to its last, so rows that run at the same time
    cost about the same. An empty row is a micro-batch without tokens, in which a rank only takes part in the
    collectives.

    lengths_N: tokens per sequence, context included, of all sequences of the optimizer step.
    token_budget: the most tokens in one row.
    ranks: number of ranks.

    Raises ValueError if a length is not positive or exceeds the budget, or if there is no rank.
    """
    if ranks < 1:
        raise ValueError(f"packing needs at least one rank; got {ranks}")
    for sequence, length in enumerate(lengths_N):
        if not 0 < length <= token_budget:
            raise ValueError(f"sequence {sequence} has {length} tokens; a row holds 1 to {token_budget}")
    longest_first = sorted(range(len(lengths_N)), key=lambda sequence: (-lengths_N[sequence], sequence))
    rows = _best_fit(lengths_N, longest_first, token_budget)
    row_count = -(-len(rows) // ranks) * ranks
    rows += [[] for _ in range(row_count - len(rows))]
    rows = _spread(lengths_N, longest_first, token_budget, row_count) or rows

    def row_cost(row: list[int]) -> int:
        return sum(_cost(lengths_N[sequence]) for sequence in row)

    rows.sort(key=row_cost, reverse=True)
    plan: list[list[list[int]]] = [[] for _ in range(ranks)]
    totals = [0] * ranks
    for turn in range(0, row_count, ranks):
        # In each turn every rank gets one row; the rank with the lowest total gets the most expensive one
        # (longest processing time first, Graham, 1969).
        by_load = sorted(range(ranks), key=lambda rank: totals[rank])
        for rank, row in zip(by_load, rows[turn : turn + ranks], strict=True):
            plan[rank].append(row)
            totals[rank] += row_cost(row)
    return plan


def minibatches(groups_count: int, count: int) -> list[range]:
    """Return consecutive ranges of group indices, one per optimizer step on the batch; their sizes differ by
    at most one.

    Raises ValueError if `count` is less than one, or exceeds `groups_count`.
    """
    if not 0 < count <= groups_count:
        raise ValueError(f"{groups_count} groups cannot be cut into {count} minibatches")
    edges = [groups_count * part // count for part in range(count + 1)]
    return [range(start, end) for start, end in pairwise(edges)]
