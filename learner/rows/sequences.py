"""A packed row as the sequences of one attention call with lengths: plain numpy, once for a row.

The first completion of a prompt continues it, so both are one causal sequence. Each other completion has
queries of its own, and keys behind a copy of its prompt's. Row ((p, a, b), (q, c)), sequence by sequence:

    queries   p a | b   | q c
    keys      p a | p b | q c        (each causal, the last query at the last key)
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dynalign.learner.rows.rows import Layout


@dataclass(frozen=True)
class RowSequences:
    """N sequences of a row with S tokens, whose keys are K rows of the S keys.

    Example, layout ((2, 1, 3), (4,)): ``query_ends_N1=[0, 3, 6, 10]``, ``key_ends_N1=[0, 3, 8, 12]``,
    ``keys_K=[0, 1, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9]``, ``longest_queries=4``, ``longest_keys=5``.
    """

    query_ends_N1: NDArray[np.int32]
    """0, then where each sequence's queries end in the row."""
    key_ends_N1: NDArray[np.int32]
    """0, then where each sequence's keys end in `keys_K`."""
    keys_K: NDArray[np.int64] | None
    """The index in the row of each key; None where no prompt is repeated: the keys are those of the row."""
    longest_queries: int
    """Queries of the sequence that has most."""
    longest_keys: int
    """Keys of the sequence that has most."""


def sequences_of(layout: Layout) -> RowSequences:
    """Return the sequences of a row. A completion without input tokens has none."""
    queries: list[int] = []
    keys: list[NDArray[np.int64]] = []
    end = 0
    for prompt, *completions in layout:
        shared = np.arange(end, end + prompt)
        end += prompt
        for number, length in enumerate([length for length in completions if length] or [0]):
            queries.append(length if number else prompt + length)
            keys.append(np.concatenate([shared, np.arange(end, end + length)]))
            end += length
    lengths = [len(each) for each in keys]
    return RowSequences(
        query_ends_N1=np.cumsum([0, *queries], dtype=np.int32),
        key_ends_N1=np.cumsum([0, *lengths], dtype=np.int32),
        keys_K=np.concatenate(keys) if sum(lengths) > end else None,
        longest_queries=max(queries),
        longest_keys=max(lengths),
    )
