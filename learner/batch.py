"""Scored groups as they arrive, read in place: token ids and log-probabilities are numpy views of the Arrow buffers.

Every rank decodes the whole batch (it is small) and computes the same advantages from it, so that preparing a step needs
no collective and one rank's bad batch is an error on all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dynalign.configs.errors import RecordError
from dynalign.learner.advantages import Scale, batch_std, group_advantages
from dynalign.rollout.arrow_schema import decode

TokenIds = NDArray[np.int32]
Logprobs = NDArray[np.float32]


def _view(record: pa.RecordBatch, column: str) -> list[Any]:
    """The entries of a list column as numpy views; None where the list is null."""
    array = record.column(column)
    values, offsets = array.values.to_numpy(zero_copy_only=True), array.offsets.to_numpy()
    bounds = zip(array.is_valid().to_pylist(), offsets, offsets[1:], strict=False)
    return [values[start:end] if valid else None for valid, start, end in bounds]


@dataclass(frozen=True)
class TrainingGroup:
    """One group as it arrived: the prompt once, and per candidate its completion."""

    record: pa.RecordBatch
    group_id: int
    context_ids: TokenIds
    completion_ids_G: list[TokenIds]
    behaviour_logprobs_G: list[Logprobs | None]

    @property
    def scores_G(self) -> list[float | None]:
        return list(self.record.column("score").to_pylist())

    @staticmethod
    def read(record: pa.RecordBatch, origin: str) -> "TrainingGroup":
        """Raises RecordError where the rows are not one group, or a log-probability is missing for a token."""
        try:
            contexts, completions = _view(record, "learning_context_ids"), _view(record, "token_ids_T")
            sampling, behaviour = _view(record, "sampling_logprobs_T"), _view(record, "behaviour_logprobs_T")
        except pa.ArrowInvalid as error:
            raise RecordError(
                f"{origin}: a list of tokens or log-probabilities holds nulls ({error})"
            ) from error
        group_ids = set(record.column("group_id").to_pylist())
        if len(group_ids) != 1:
            raise RecordError(f"{origin}: a record batch holds {len(group_ids)} groups; it must hold one")
        (group_id,) = group_ids
        if not len(contexts[0]) or any(not np.array_equal(context, contexts[0]) for context in contexts):
            raise RecordError(
                f"{origin}: the candidates of group {group_id} do not share one non-empty prompt"
            )
        for index, tokens in enumerate(completions):
            for logprobs in (sampling[index], behaviour[index]):
                if logprobs is not None and len(logprobs) != len(tokens):
                    counts = f"{len(tokens)} tokens and {len(logprobs)} log-probabilities"
                    raise RecordError(f"{origin}: candidate {index} of group {group_id} has {counts}")
        return TrainingGroup(record, group_id, contexts[0], completions, behaviour)


def decode_groups(
    payloads: Sequence[bytes | memoryview | pa.Buffer], origins: Sequence[str]
) -> list[TrainingGroup]:
    """The groups of all payloads in order, zero-copy. `origins` names the payloads in errors.

    :raises RecordError: a payload is damaged, of another schema, or not made of whole groups; a group stands twice.
    """
    groups = [
        TrainingGroup.read(record, origin)
        for payload, origin in zip(payloads, origins, strict=True)
        for record in decode(payload, origin)
    ]
    seen: set[int] = set()
    for group in groups:
        if group.group_id in seen:
            raise RecordError(f"group {group.group_id} stands twice in the batch")
        seen.add(group.group_id)
    return groups


@dataclass(frozen=True)
class TrainingBatch:
    """The groups of one step with their advantages, [group][candidate]. Candidates also have one flat number, in that order."""

    groups_P: tuple[TrainingGroup, ...]
    advantages_PG: tuple[tuple[float, ...], ...]

    @staticmethod
    def of(groups: Sequence[TrainingGroup], scale: Scale) -> "TrainingBatch":
        """Raises RecordError when a score is not a number."""
        scores_PG = [group.scores_G for group in groups]
        try:
            spread = batch_std(scores_PG)
            advantages_PG = tuple(tuple(group_advantages(scores_G, scale, spread)) for scores_G in scores_PG)
        except ValueError as error:
            raise RecordError(f"groups {[group.group_id for group in groups]}: {error}") from error
        return TrainingBatch(tuple(groups), advantages_PG)

    @cached_property
    def group_ids(self) -> tuple[int, ...]:
        return tuple(group.group_id for group in self.groups_P)

    @cached_property
    def lengths_N(self) -> list[int]:
        """Completion tokens of every candidate."""
        return [len(tokens) for group in self.groups_P for tokens in group.completion_ids_G]

    @cached_property
    def highest_token_id(self) -> int:
        """The highest token id in the batch, -1 without tokens."""
        everything = [ids for group in self.groups_P for ids in (group.context_ids, *group.completion_ids_G)]
        return max((int(ids.max()) for ids in everything if len(ids)), default=-1)

    def candidates(self, column: str) -> list[Any]:
        """A column of the records, one Python value per candidate."""
        return [value for group in self.groups_P for value in group.record.column(column).to_pylist()]

    def groups(self, column: str) -> list[Any]:
        """A column that is the same for all candidates of a group, one Python value per group."""
        return [group.record.column(column)[0].as_py() for group in self.groups_P]
