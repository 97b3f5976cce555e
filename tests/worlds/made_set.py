"""A made set on disk as `dynalign prompts make` leaves it, with texts that nobody wrote: composed words."""

import json
import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from dynalign.dataset.items import AXES
from tests.worlds.planted_edits import composed

DOMAINS = ("farming", "care <b>", "law|court")
REGIONS = ("the Andes", "Sápmi", "Java")
REASONS = ("", "", "", "duplicate", "weak_realistic", "unreadable_critic")


def write_made_set(folder: Path, items: int = 60, seed: int = 1) -> None:
    """Writes set.json, prompts.parquet and items.parquet."""
    chance = random.Random(seed)
    rows: list[dict[str, object]] = []
    for number, text in enumerate(composed(items, chance)):
        reason = chance.choice(REASONS) if number else ""
        fate = "failed" if reason.startswith("unreadable") else "rejected" if reason else "accepted"
        goal = f"goal {number // 4}"
        rows.append(
            {
                "place": number,
                "attempt": 0,
                "seed": number,
                "domain": DOMAINS[number % 3],
                "situation": "",
                "stakeholder": "",
                "region": REGIONS[number // 3 % 3],
                "severity": "",
                "goal": goal,
                "prompt": "" if fate == "failed" else text,
                "extras": {},
                "fate": fate,
                "reason": reason,
                "detail": "near to place 0" if reason == "duplicate" else "",
                "split": ("heldout" if number // 4 % 5 == 0 else "train") if fate == "accepted" else "",
                "score": None if fate == "failed" else 90,
                "rounds": [],
            }
        )
    accepted = [row for row in rows if row["fate"] == "accepted"]
    columns = ("prompt", *AXES, "goal", "split", "place", "attempt", "score")
    prompts = [
        {"id": f"p{row['place']:05}", **{name: row[name] for name in columns}, "difficulty": 3}
        for row in accepted
    ]
    text = pa.string()
    schema = pa.schema(
        [("place", pa.int64()), ("attempt", pa.int64()), ("seed", pa.int64())]
        + [(name, text) for name in (*AXES, "goal", "prompt")]
        + [("extras", pa.map_(text, text))]
        + [(name, text) for name in ("fate", "reason", "detail", "split")]
        + [("score", pa.int64()), ("rounds", pa.list_(pa.struct([("prompt", text)])))]
    )
    folder.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "items.parquet")
    pyarrow.parquet.write_table(pa.Table.from_pylist(prompts), folder / "prompts.parquet")
    lines = "".join(json.dumps(prompt, ensure_ascii=False) + "\n" for prompt in prompts)
    (folder / "prompts.jsonl").write_text(lines, encoding="utf-8")
    fates = Counter(str(row["fate"]) for row in rows)
    state = {"format": 1, "identity": {"model": "none", "seed": seed}, "asked": items, **fates}
    (folder / "set.json").write_text(json.dumps(state), encoding="utf-8")
