"""What a run has recorded about its prompts: the outcome of every group, and the cell of every prompt.

The ledger's log says which groups were trained and which were withheld, and so, by the order of the draws,
which prompt each had. The experience says how far the scores of the trained ones were apart. Both can be read
while the run goes on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.schema import RunSettings
from dynalign.dataset.items import AXES
from dynalign.dataset.refresh_choice import GroupOutcome, group_usefulness
from dynalign.launch.prompt_check import prompts_of
from dynalign.rollout import added_prompts
from dynalign.rollout.ledger import log
from dynalign.rollout.ledger.restore import prompt_changes
from dynalign.rollout.ledger.values import LACKS_SIGNAL, PromptChange
from dynalign.rollout.prompt_sources import RowForm, read_rows
from dynalign.rollout.prompts import PromptOrder, PromptSet
from dynalign.run_folder import layout
from dynalign.run_folder.checkpoint import newest_whole, read_manifest

KNOWN = (*AXES, "goal")
"""What a row of a made set says of a prompt. Prompts of one goal are alike, so it counts as an axis."""


@dataclass(frozen=True)
class RunRecord:
    """The prompts of a run and what became of their groups.

    Example: `RunRecord(prompts, "0123456789abcdef", (), ({"domain": "food"}, …), (outcome, …), 850.0)`.
    """

    prompts: PromptSet
    """All, those that came to the run included; a position counts in `prompts.train`."""
    base_hash: str
    """Content hash of the prompts with which the run began."""
    changes: tuple[PromptChange, ...]
    """Of the prompts, so far."""
    cells: tuple[Mapping[str, str], ...]
    """Position → axis → value, as far as they are known."""
    outcomes: tuple[GroupOutcome, ...]
    """Of the groups that say something, in the order of their steps."""
    tokens_per_group: float | None
    """Mean completion tokens of the recorded groups; None where none is kept."""

    @property
    def after(self) -> str:
        """Content hash of the newest set that the run has taken; empty if it took none."""
        return self.changes[-1].content_hash if self.changes else ""

    @property
    def dropped(self) -> frozenset[int]:
        """Positions that are not drawn any more."""
        return frozenset(position for change in self.changes for position in change.dropped)


def read_record(folder: Path, settings: RunSettings) -> RunRecord:
    """The record of the run in `folder`.

    Raises UserError if its prompts cannot be read or are others than at its start; RecordError for a damaged
    log, experience or added set."""
    base = prompts_of(settings)
    _refuse_changed(folder, settings, base)
    file = folder / layout.LEDGER_LOG
    lines = log.read(file) if file.exists() else ()
    changes = prompt_changes(lines)
    added = added_prompts.read_all(folder, [change.content_hash for change in changes])
    prompts = PromptSet((*base.train, *added), base.heldout)
    order = PromptOrder(len(base.train), settings.seed, tuple(change.of_order for change in changes))
    usefulness_of, tokens = _recorded(folder / layout.EXPERIENCE)
    unknown = fmean(usefulness_of.values()) if usefulness_of else 1.0
    outcomes: list[GroupOutcome] = []
    for commit in log.committed(lines):
        found = {group_id: usefulness_of.get(group_id, unknown) for group_id in commit.group_ids}
        found |= {group_id: 0.0 for group_id, reason in commit.withheld if reason in LACKS_SIGNAL}
        outcomes += (
            GroupOutcome(order.at(group_id).index, commit.step, usefulness)
            for group_id, usefulness in sorted(found.items())
        )
    cells = (*_base_cells(settings, base), *_added_cells(folder, changes))
    mean_tokens = fmean(tokens) if tokens else None
    return RunRecord(prompts, base.content_hash, changes, cells, tuple(outcomes), mean_tokens)


def _refuse_changed(folder: Path, settings: RunSettings, base: PromptSet) -> None:
    """Draws are positions: with other prompts they would mean other ones."""
    newest = newest_whole(folder / layout.CHECKPOINTS)
    known = None if newest is None else read_manifest(newest).settings.get("prompts")
    if known is not None and known != base.content_hash:
        rule = f"holds other prompts than when the run in {folder} began"
        remedy = "put them back: positions in the ledger's log would mean other prompts"
        raise UserError([Mistake("prompts.source", settings.prompts.source, rule, remedy)])


def _recorded(experience: Path) -> tuple[dict[int, float], list[int]]:
    """Group → its usefulness, and the completion tokens of each group, of all steps that are kept."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from dynalign.rollout.arrow_schema import decode

    usefulness_of: dict[int, float] = {}
    tokens: list[int] = []
    for _, file in sorted(layout.experience_files(experience).items()):
        try:
            source = pa.memory_map(str(file))
        except FileNotFoundError:  # `experience.keep_steps` has removed it meanwhile
            continue
        with source:
            for record in decode(source.read_buffer(), str(file)):
                scores_G = [score for score in record.column("score").to_pylist() if score is not None]
                noise_std = record.column("noise_std")[0].as_py()
                usefulness_of[record.column("group_id")[0].as_py()] = group_usefulness(scores_G, noise_std)
                tokens.append(pc.sum(pc.list_value_length(record.column("token_ids_T"))).as_py() or 0)
    return usefulness_of, tokens


def _base_cells(settings: RunSettings, base: PromptSet) -> list[Mapping[str, str]]:
    """In the order of the source, as the prompts are."""
    form = RowForm(settings.prompts.column, settings.prompts.earlier_turns, further=KNOWN)
    rows = [row for _, row in read_rows(settings.prompts.source, [], form)]
    train: list[Mapping[str, str]] = [
        _cell(row) for row in rows if str(row.get("split") or "train") == "train"
    ]
    return train if len(train) == len(base.train) else [{}] * len(base.train)


def _added_cells(folder: Path, changes: Iterable[PromptChange]) -> list[Mapping[str, str]]:
    """Of the sets that came to the run. Where a set is gone, the domain alone is known."""
    cells: list[Mapping[str, str]] = []
    for change in changes:
        added = added_prompts.read(folder, change.content_hash)
        name = Path(added.origin).name
        made = folder / layout.REFRESHES / name / "prompts.jsonl"
        rows = [row for _, row in read_rows(str(made), [], RowForm(further=KNOWN))] if made.exists() else []
        row_of = {f"{name}-{row.get('id')}": row for row in rows}
        cells += (_cell(row_of.get(each.id, {"domain": each.domain})) for each in added.prompts)
    return cells


def _cell(row: Mapping[str, object]) -> dict[str, str]:
    found = {axis: row.get(axis) for axis in KNOWN}
    return {axis: value for axis, value in found.items() if isinstance(value, str) and value}
