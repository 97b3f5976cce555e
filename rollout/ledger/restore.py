"""Rebuilds a ledger from a checkpoint's snapshot, the log, and the files in the spool.

Two cases, one procedure. The log after the checkpoint's cut is split by lineage:
  - lines of the lineage that is being opened: only the ledger died, and the learner lives. They are applied.
  - lines of any other lineage: the run went back to the checkpoint. They are abandoned and counted as rolled
    back. The draw cursor stands where the checkpoint left it, so their groups are drawn again with the same
    draw numbers.
Leased groups are pending again. A scored group stays scored if its file is whole and it can still be trained
in time. The quarantine is read from all lines, whatever their lineage: going back to a checkpoint does not
make a prompt harmless. So are changes of the prompts: what a draw yields is the same in every lineage.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dynalign.configs.errors import CheckpointError, RecordError, StaleLineage
from dynalign.rollout.ledger.age_bound import meetable
from dynalign.rollout.ledger.evaluation_leases import EvaluationResult
from dynalign.rollout.ledger.lease_table import LeaseTable
from dynalign.rollout.ledger.log_lines import LogLine
from dynalign.rollout.ledger.quarantine import Quarantine
from dynalign.rollout.ledger.rules import Ledger
from dynalign.rollout.ledger.state import LedgerState, Unpacked, unpack
from dynalign.rollout.ledger.values import (
    ATTEMPTS_PER_LEDGER,
    Break,
    Commit,
    DrawOrder,
    LedgerSettings,
    LineageStart,
    PromptChange,
    PromptId,
    Scored,
)
from dynalign.run_folder.spool import SpoolEntry


def restore(
    settings: LedgerSettings,
    order: DrawOrder,
    snapshot: Mapping[str, Any] | None,
    lines: Sequence[LogLine],
    spooled: Mapping[str, SpoolEntry],
    lineage: int,
) -> Ledger:
    """The ledger of `lineage`. snapshot: the checkpoint's, None for a run without one. spooled: file name to
    its measured entry.

    Raises CheckpointError for a damaged snapshot, RecordError for a log that contradicts it, StaleLineage if
    snapshot or log know a lineage newer than `lineage`.
    """
    start = unpack(snapshot) if snapshot is not None else Unpacked(LedgerState(), (), 0)
    state = start.state
    newest = max([start.lineage, *(_lineage(line) for line in lines)])
    if newest > lineage:
        raise StaleLineage(lineage, newest)
    state.prompt_changes = prompt_changes(lines, state.prompt_changes)
    order = _changed(order, state.prompt_changes)
    after = _after_the_cut(lines, start.lineage, state.version)
    mine = [line for line in after if _lineage(line) == lineage]

    state.rolled_back += _rolled_back([line for line in after if _lineage(line) != lineage])
    candidates = {
        i: scored for i, scored in state.scored.items() if scored.group.version_max <= state.version
    }
    candidates |= {line.group.group_id: line for line in mine if isinstance(line, Scored)}
    waiting = set(state.pending)
    open_ids = waiting | set(start.leased) | set(state.scored)
    seen = max((group_id for line in mine for group_id in _group_ids(line)), default=-1)
    open_ids |= set(range(state.issued, seen + 1))
    state.issued = max(state.issued, seen + 1)
    for commit in (line for line in mine if isinstance(line, Commit)):
        _apply(commit, state, open_ids)

    whole = {i: scored for i, scored in candidates.items() if i in open_ids and _is_whole(scored, spooled)}
    due = (
        (scored.leased_at_version + settings.max_staleness, group_id) for group_id, scored in whole.items()
    )
    kept = meetable(due, state.version, settings.prompts_per_step)
    for group_id in list(state.scored):
        state.drop(group_id)
    for group_id in sorted(kept):
        state.keep(whole[group_id])
    state.pending = sorted(open_ids - kept)
    state.requeued += len(set(state.pending) - waiting)
    state.ended = state.ended and settings.steps <= state.version
    openings = sum(line.lineage == lineage for line in lines if isinstance(line, LineageStart))
    leases = LeaseTable(settings.lease_s, Quarantine(settings.poison_attempts, _broken(lines, order)))
    ledger = Ledger(settings, order, lineage, state, openings * ATTEMPTS_PER_LEDGER, leases)
    ledger.draws_before = 1 + max((group_id for line in lines for group_id in _named(line)), default=-1)
    return ledger


def prompt_changes(lines: Iterable[LogLine], known: Sequence[PromptChange] = ()) -> tuple[PromptChange, ...]:
    """The changes of the prompts, each once, in their order. known: those of a snapshot, which come first."""
    found = {change.content_hash: change for change in known}
    for line in lines:
        if isinstance(line, PromptChange):
            found.setdefault(line.content_hash, line)
    return tuple(found.values())


def heldout_answers(lines: Iterable[LogLine], lineage: int) -> tuple[EvaluationResult, ...]:
    """The answers of the newest evaluation of `lineage`. An earlier lineage's are asked again: it may have
    gone on under policies that are gone."""
    mine = [line for line in lines if isinstance(line, EvaluationResult) and line.lineage == lineage]
    newest = max((line.key.evaluation for line in mine), default=0)
    return tuple(line for line in mine if line.key.evaluation == newest)


def _changed(order: DrawOrder, changes: Iterable[PromptChange]) -> DrawOrder:
    for change in changes:
        try:
            order = order.changed(change.of_order)
        except ValueError as error:
            raise RecordError(f"ledger log: {error}") from error
    return order


def opening(ledger: Ledger, snapshot: Mapping[str, Any] | None, lines: Iterable[LogLine]) -> LineageStart:
    """The log line that says from where a ledger that has just been restored with these arguments goes on."""
    reopened = any(isinstance(line, LineageStart) and line.lineage == ledger.lineage for line in lines)
    parent = ledger.lineage if reopened else (snapshot or {}).get("lineage", 0)
    return LineageStart(ledger.lineage, ledger.state.version, parent)


def compacted(lines: Sequence[LogLine], ledger: Ledger, step: int) -> Sequence[LogLine]:
    """The lines that a restore from the checkpoint of `step`, which the lineage of `ledger` wrote, or from a
    later one needs.

    Before the cut the history stays (lineages, commits and changes of the prompts, for audits and for the
    numbering of attempts), and so do the newest death of each prompt that was still under quarantine, and the
    answers of an evaluation that may still be open. What was scored before the cut is in the checkpoint.
    """
    after = _after_the_cut(lines, ledger.lineage, step)
    before = lines[: len(lines) - len(after)]
    broken = _broken(before, ledger.order)
    newest_death = {
        line.prompt_index: line
        for line in before
        if isinstance(line, Break) and PromptId("train", line.prompt_index) in broken
    }
    answers = heldout_answers(lines, ledger.lineage)
    needed = {id(line) for line in (*newest_death.values(), *answers)}
    history = LineageStart | Commit | PromptChange
    kept = [line for line in before if isinstance(line, history) or id(line) in needed]
    return [*kept, *after]


def _lineage(line: LogLine) -> int:
    return line.group.lineage if isinstance(line, Scored) else line.lineage


def _broken(lines: Iterable[LogLine], order: DrawOrder) -> dict[PromptId, tuple[str, ...]]:
    """The prompts under quarantine, with the workers that they broke since they were last scored."""
    broken: dict[PromptId, tuple[str, ...]] = {}
    for line in lines:
        if isinstance(line, Break):
            broken[PromptId("train", line.prompt_index)] = line.workers
        elif isinstance(line, Scored) and broken:
            broken.pop(PromptId("train", order.at(line.group.group_id).index), None)
    return broken


def _group_ids(line: LogLine) -> tuple[int, ...]:
    match line:
        case Commit():
            return line.group_ids + tuple(group_id for group_id, _ in line.withheld)
        case Scored():
            return (line.group.group_id,)
        case LineageStart() | Break() | PromptChange() | EvaluationResult():
            return ()


def _named(line: LogLine) -> tuple[int, ...]:
    return (line.group_id,) if isinstance(line, Break) else _group_ids(line)


def _after_the_cut(lines: Sequence[LogLine], lineage: int, step: int) -> Sequence[LogLine]:
    """The lines after the first one that says that `lineage` stood at `step`; all lines where none does.

    A ledger that is restarted before the next commit says it again. Groups that were scored in between belong
    to the state after the cut, however often that happens. A snapshot may know some of them already, which
    changes nothing: only groups that are open in it count.
    """
    for index, line in enumerate(lines):
        if isinstance(line, LineageStart | Commit) and (line.lineage, line.step) == (lineage, step):
            return lines[index + 1 :]
    return lines


def _rolled_back(abandoned: Iterable[LogLine]) -> int:
    """Groups whose progress is undone, counted once per lineage that made it."""
    return len({(_lineage(line), group_id) for line in abandoned for group_id in _group_ids(line)})


def _apply(commit: Commit, state: LedgerState, open_ids: set[int]) -> None:
    if commit.step != state.version + 1:
        raise RecordError(
            f"ledger log: lineage {commit.lineage} commits step {commit.step} after step {state.version}"
        )
    for group_id in commit.group_ids:
        if not state.release(group_id) and group_id not in open_ids:
            raise CheckpointError(
                f"ledger log: step {commit.step} trains group {group_id}, which was trained before"
            )
    open_ids -= set(commit.group_ids)
    for group_id, reason in commit.withheld:
        state.withhold(group_id, reason)
        open_ids.discard(group_id)
    state.trained += len(commit.group_ids)
    state.version = commit.step
    state.last_group_ids = commit.group_ids


def _is_whole(scored: Scored, spooled: Mapping[str, SpoolEntry]) -> bool:
    return spooled.get(scored.group.entry.name) == scored.group.entry
