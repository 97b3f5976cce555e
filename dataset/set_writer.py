"""A set as files: the prompts, and every item, as JSONL and Parquet. The same items give the same bytes."""

import io
import json
from collections.abc import Sequence
from typing import Any

from dynalign.configs.sections.prompt_making import PromptMakingSettings
from dynalign.dataset.board import FateCounts
from dynalign.dataset.items import AXES, Draft, PromptItem
from dynalign.dataset.set_folder import SetFolder
from dynalign.dataset.split import HELDOUT, splits
from dynalign.run_folder import durable

Row = dict[str, Any]


def write_set(
    folder: SetFolder,
    items: Sequence[PromptItem],
    in_set: Sequence[PromptItem],
    settings: PromptMakingSettings,
) -> int:
    """Writes the four files. items: all, by key; in_set: those in the set, by place. Returns how many prompts
    are held out. Raises OSError."""
    import pyarrow as pa

    found = splits(in_set, settings.heldout_share, settings.seed, settings.prompts_per_goal)
    split_of = dict(zip([item.key for item in in_set], found, strict=True))
    prompts = [prompt_row(item, split_of[item.key]) for item in in_set]
    rows = [item_row(item, split_of.get(item.key, "")) for item in items]
    durable.write(folder.path / "prompts.jsonl", _lines(prompts))
    durable.write(folder.path / "items.jsonl", _lines(rows))
    names = list(dict.fromkeys(name for row in prompts for name in row)) or list(PROMPT_TYPES)
    fields = [(name, PROMPT_TYPES.get(name, "string")) for name in names]
    schema = pa.schema([pa.field(name, pa.type_for_alias(kind)) for name, kind in fields])
    durable.write(folder.path / "prompts.parquet", _parquet(prompts, schema))
    durable.write(
        folder.path / "items.parquet", _parquet([_maps_as_pairs(row) for row in rows], _item_schema())
    )
    return found.count(HELDOUT)


PROMPT_TYPES = {
    **dict.fromkeys(
        ("id", "prompt", "domain", "split", "goal", "situation", "stakeholder", "region"), "string"
    ),
    "severity": "string",
    "place": "int64",
    "attempt": "int64",
    "score": "int64",
    "difficulty": "int64",
}
"""Column of prompts.parquet → its type. The writer's further fields follow as text."""


def prompt_row(item: PromptItem, split: str) -> Row:
    """A row of prompts.jsonl: what a run reads (id, prompt, domain, split), and where it comes from."""
    criticism = item.rounds[-1].criticism
    return {
        "id": f"p{item.key.place:06d}",
        "prompt": item.prompt,
        "domain": item.cell.domain,
        "split": split,
        "goal": item.goal,
        "situation": item.cell.situation,
        "stakeholder": item.cell.stakeholder,
        "region": item.cell.region,
        "severity": item.cell.severity,
        "place": item.key.place,
        "attempt": item.key.attempt,
        "score": item.score,
        "difficulty": None if criticism is None else criticism.difficulty,
        **{name: text for name, text in item.extras.items() if name not in PROMPT_TYPES},
    }


def item_row(item: PromptItem, split: str) -> Row:
    """A row of items.jsonl: an item with all its texts. split: empty if it is not in the set."""
    axes = dict(zip(AXES, _axis_values(item), strict=True))
    return {
        "place": item.key.place,
        "attempt": item.key.attempt,
        "seed": item.seed,
        **axes,
        "goal": item.goal,
        "prompt": item.prompt,
        "extras": dict(item.extras),
        "fate": item.fate,
        "reason": item.reason,
        "detail": item.detail,
        "split": split,
        "score": item.score,
        "rounds": [_round_row(draft) for draft in item.rounds],
    }


def figures(
    counts: FateCounts, settings: PromptMakingSettings, heldout: int, end_reason: str, complete: bool
) -> dict[str, object]:
    """What set.json says of a set: the law asked = accepted + rejected + failed in numbers."""
    return {
        "settings": settings.model_dump(mode="json"),
        "count": settings.count,
        "complete": complete,
        "ended": end_reason,
        "asked": counts.asked,
        "accepted": counts.accepted,
        "heldout": heldout,
        "rejected": counts.rejected,
        "failed": counts.failed,
    }


def _axis_values(item: PromptItem) -> tuple[str, ...]:
    cell = item.cell
    return cell.domain, cell.situation, cell.stakeholder, cell.region, cell.severity


def _round_row(draft: Draft) -> Row:
    said = draft.criticism
    return {
        "prompt": draft.prompt,
        "extras": dict(draft.extras),
        "fault": draft.fault,
        "score": None if said is None else said.score,
        "difficulty": None if said is None else said.difficulty,
        "deductions": {} if said is None else dict(said.deductions),
        "disqualified": [] if said is None else list(said.disqualified),
        "feedback": None if said is None else said.feedback,
    }


def _lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _maps_as_pairs(row: Row) -> Row:
    """The row as Arrow takes maps: lists of pairs."""
    rounds = [
        {**each, "extras": list(each["extras"].items()), "deductions": list(each["deductions"].items())}
        for each in row["rounds"]
    ]
    return {**row, "extras": list(row["extras"].items()), "rounds": rounds}


def _item_schema() -> Any:
    import pyarrow as pa

    text = pa.string()
    number = pa.int64()
    texts = pa.map_(text, text)
    draft = pa.struct(
        [
            ("prompt", text),
            ("extras", texts),
            ("fault", text),
            ("score", number),
            ("difficulty", number),
            ("deductions", pa.map_(text, number)),
            ("disqualified", pa.list_(text)),
            ("feedback", text),
        ]
    )
    return pa.schema(
        [
            *((name, number) for name in ("place", "attempt", "seed")),
            *((name, text) for name in (*AXES, "goal", "prompt")),
            ("extras", texts),
            *((name, text) for name in ("fate", "reason", "detail", "split")),
            ("score", number),
            ("rounds", pa.list_(draft)),
        ]
    )


def _parquet(rows: Sequence[Row], schema: Any) -> memoryview:
    import pyarrow as pa
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(list(rows), schema=schema), buffer)
    return buffer.getbuffer()
