"""Scored groups, decoded without a copy: token ids and log-probabilities are numpy views of the Arrow
buffers.

Every rank decodes the whole batch, which is small, and computes the same advantages from it. So preparing a
step needs no collective, and a batch that cannot be decoded is an error on every rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dynalign.configs.errors import RecordError, UntrainableGroups
from dynalign.learner import opinions, record_checks
from dynalign.learner.advantages import Scale, batch_std, group_advantages
from dynalign.learner.consistency import consistency_weight
from dynalign.rollout.arrow_schema import decode
from dynalign.run_folder import layout

TokenIds = NDArray[np.int32]
Logprobs = NDArray[np.float32]


def _view(record: pa.RecordBatch, column: str) -> list[Any]:
    """Return the entries of a list column as numpy views; None where the list is null."""
    array = record.column(column)
    values = array.values.to_numpy(zero_copy_only=True)
    offsets = array.offsets.to_numpy()
    bounds = zip(array.is_valid().to_pylist(), offsets, offsets[1:], strict=False)
    return [values[start:end] if valid else None for valid, start, end in bounds]


@dataclass(frozen=True)
class TrainingGroup:
    """One scored group: the prompt once, and the completion of each candidate.

    Example, with G = 2: ``TrainingGroup(record, 7, array([1, 15]), [array([9, 2]), array([4])], [None,
    None])``
    """

    record: pa.RecordBatch
    """The record batch as it arrived, one row per candidate; the arrays below are views of it."""
    group_id: int
    """The number of the group's draw, unique in a run."""
    context_ids: TokenIds
    """Token ids of the context in which the learner trains: without the system prompt that carries the
    values, unless `algorithm.system_prompt` is `kept`."""
    completion_ids_G: list[TokenIds]
    """Token ids of each candidate's completion; an array may be empty."""
    behaviour_logprobs_G: list[Logprobs | None]
    """Per candidate, the log-probability (nats) of each token in the learning context, by the policy that
    sampled it; None where it was not recorded."""

    @property
    def scores_G(self) -> list[float | None]:
        """The score of each candidate in points; None where it was not parsed."""
        return list(self.record.column("score").to_pylist())

    @property
    def characters_G(self) -> list[int]:
        """The length of each candidate's answer in characters: what the judge read, without reasoning."""
        return [len(text) for text in self.record.column("text").to_pylist()]

    @cached_property
    def sampling_logprobs_G(self) -> list[Logprobs]:
        """Per candidate, the log-probability (nats) of each token in the sampling context, by the engine when
        it sampled."""
        return _view(self.record, "sampling_logprobs_T")

    @property
    def confidences_G(self) -> list[float | None]:
        """The policy's confidence in each candidate: its mean log-probability per token when it was sampled,
        in nats; None for one without tokens."""
        sampling_G = self.sampling_logprobs_G
        return [float(logprobs_T.mean()) if len(logprobs_T) else None for logprobs_T in sampling_G]

    @staticmethod
    def read(record: pa.RecordBatch, origin: str) -> "TrainingGroup":
        """Read one group. `origin` names the record in errors.

        Raises RecordError if the rows are not one group, or a token has no log-probability.
        """
        try:
            contexts = _view(record, "learning_context_ids")
            completions = _view(record, "token_ids_T")
            sampling = _view(record, "sampling_logprobs_T")
            behaviour = _view(record, "behaviour_logprobs_T")
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
    payloads: Sequence[bytes | memoryview | pa.Buffer],
    origins: Sequence[str],
    group_size: int | None = None,
    vocabulary_size: int | None = None,
) -> list[TrainingGroup]:
    """Return the groups of all payloads in order, without a copy.

    payloads: Arrow streams, each with one record batch per group.
    origins: a name for each payload, used in errors. If it is that of a file in the spool, the payload must
    hold the group that the name says.
    group_size, vocabulary_size: see `record_checks.fault`.

    Raises UntrainableGroups that names every group whose records are damaged, incomplete, or hold a value
    that cannot be trained on. Raises RecordError if a payload cannot be read and its name does not say which
    group it holds, or if a group occurs twice.
    """
    groups: list[TrainingGroup] = []
    causes: dict[int, str] = {}
    for payload, origin in zip(payloads, origins, strict=True):
        named = layout.group_of(origin)
        try:
            records = decode(payload, origin)
            if named is not None and len(records) != 1:
                raise RecordError(f"{origin}: {len(records)} record batches instead of one")
        except RecordError as error:
            if named is None:
                raise
            causes[named] = str(error)
            continue
        for record in records:
            try:
                group = TrainingGroup.read(record, origin)
                _refuse(group, origin, named, group_size, vocabulary_size)
            except RecordError as error:
                causes[_group_of(record, named, error)] = str(error)
            else:
                groups.append(group)
    if causes:
        raise UntrainableGroups(causes)
    seen: set[int] = set()
    for group in groups:
        if group.group_id in seen:
            raise RecordError(f"group {group.group_id} stands twice in the batch")
        seen.add(group.group_id)
    return groups


def _refuse(
    group: TrainingGroup, origin: str, named: int | None, group_size: int | None, vocabulary_size: int | None
) -> None:
    """Raise RecordError if the group is not the one that the file's name says, or cannot be trained on."""
    if named is not None and group.group_id != named:
        raise RecordError(f"{origin}: the records are those of group {group.group_id}")
    fault = record_checks.fault(group.record, group_size, vocabulary_size)
    if fault is not None:
        raise RecordError(f"{origin}: group {group.group_id} cannot be trained on: {fault}")


def _group_of(record: pa.RecordBatch, named: int | None, error: RecordError) -> int:
    """Return the id of a group that was refused, by its file's name or its first row. Raises `error` if
    neither says it."""
    if named is not None:
        return named
    if record.num_rows == 0:
        raise error
    return int(record.column("group_id")[0].as_py())


def _consistency(group: TrainingGroup) -> float:
    """Return the weight of the group's advantages by the agreement of its judge with the initial policy."""
    return consistency_weight(opinions.own_scores(group.record), opinions.frozen_scores(group.record))


@dataclass(frozen=True)
class TrainingBatch:
    """The groups of one step with their advantages.

    Axes: P groups (prompts), G candidates of a group, N candidates of the whole batch, numbered group by
    group.
    """

    groups_P: tuple[TrainingGroup, ...]
    """The groups, in the order in which they are trained."""
    advantages_PG: tuple[tuple[float, ...], ...]
    """The advantage of each candidate, [group][candidate]."""

    @staticmethod
    def of(groups: Sequence[TrainingGroup], scale: Scale, by_consistency: bool = False) -> "TrainingBatch":
        """Compute the advantages of `groups`. by_consistency: see `judge.consistency_weight`.

        Raises RecordError if a score is not finite."""
        scores_PG = [group.scores_G for group in groups]
        try:
            spread = batch_std(scores_PG)
            advantages_PG = tuple(tuple(group_advantages(scores_G, scale, spread)) for scores_G in scores_PG)
        except ValueError as error:
            raise RecordError(f"groups {[group.group_id for group in groups]}: {error}") from error
        if by_consistency:
            weights_P = [_consistency(group) for group in groups]
            pairs = zip(weights_P, advantages_PG, strict=True)
            advantages_PG = tuple(tuple(weight * value for value in each_G) for weight, each_G in pairs)
        return TrainingBatch(tuple(groups), advantages_PG)

    @cached_property
    def group_ids(self) -> tuple[int, ...]:
        """The id of each group."""
        return tuple(group.group_id for group in self.groups_P)

    @cached_property
    def lengths_N(self) -> list[int]:
        """The number of completion tokens of each candidate."""
        return [len(tokens) for group in self.groups_P for tokens in group.completion_ids_G]

    def candidates(self, column: str) -> list[Any]:
        """Return a column of the records, one Python value per candidate."""
        return [value for group in self.groups_P for value in group.record.column(column).to_pylist()]

    def groups(self, column: str) -> list[Any]:
        """Return a column whose value is the same for all candidates of a group, one Python value per
        group."""
        return [group.record.column(column)[0].as_py() for group in self.groups_P]
