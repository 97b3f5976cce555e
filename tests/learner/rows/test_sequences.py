"""A row as sequences of one call: every query once, and before it the keys of its prompt and its own."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dynalign.learner.rows.rows import Layout
from dynalign.learner.rows.sequences import RowSequences, sequences_of

LAYOUTS = st.lists(
    st.tuples(st.integers(1, 6), st.lists(st.integers(0, 5), max_size=5)).map(lambda row: (row[0], *row[1])),
    min_size=1,
    max_size=4,
).map(tuple)


def keys_of_queries(planned: RowSequences) -> list[list[int]]:
    """For each query of the row, the keys that it sees: causal, the last query at the last key."""
    keys_K = np.arange(planned.key_ends_N1[-1]) if planned.keys_K is None else planned.keys_K
    seen = []
    for (q0, q1), (k0, k1) in zip(
        pairwise(planned.query_ends_N1), pairwise(planned.key_ends_N1), strict=True
    ):
        seen += [keys_K[k0 : k1 - behind].tolist() for behind in reversed(range(q1 - q0))]
    return seen


def keys_by_definition(layout: Layout) -> list[list[int]]:
    """The same, token by token: those of its prompt before it, and those of its own completion."""
    seen = []
    for prompt, *completions in layout:
        shared = list(range(len(seen), len(seen) + prompt))
        seen += [shared[: index + 1] for index in range(prompt)]
        for length in completions:
            own = range(len(seen), len(seen) + length)
            seen += [[*shared, *own[: index + 1]] for index in range(length)]
    return seen


def test_the_sequences_of_a_row_by_hand() -> None:
    planned = sequences_of(((2, 1, 3), (4,)))
    assert planned.query_ends_N1.tolist() == [0, 3, 6, 10]
    assert planned.key_ends_N1.tolist() == [0, 3, 8, 12]
    assert planned.keys_K is not None
    assert planned.keys_K.tolist() == [0, 1, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert (planned.longest_queries, planned.longest_keys) == (4, 5)
    assert planned.query_ends_N1.dtype == planned.key_ends_N1.dtype == np.int32, "what the kernel reads"


@given(LAYOUTS)
def test_every_query_sees_its_prompt_and_its_own_completion(layout: Layout) -> None:
    planned = sequences_of(layout)
    assert keys_of_queries(planned) == keys_by_definition(layout)
    assert planned.longest_queries == np.diff(planned.query_ends_N1).max()
    assert planned.longest_keys == np.diff(planned.key_ends_N1).max()


@given(LAYOUTS)
def test_keys_are_copied_only_where_a_prompt_has_several_completions(layout: Layout) -> None:
    shares = any(sum(1 for length in completions if length) > 1 for _, *completions in layout)
    assert (sequences_of(layout).keys_K is not None) == shares
