"""The folder of a set: its files, whose set it is, and whether a command may go on with it.

set.json        what the set is made from (its identity), and, once the command has ended, its figures
answers.sqlite  every answer, synced before it is used
prompts.*       the set (JSONL and Parquet)
items.*         every item with all its texts and what was said of them
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dynalign.configs.errors import Mistake, UserError
from dynalign.dataset.agent_texts import AGENTS, Agent
from dynalign.dataset.making_plan import MakingPlan
from dynalign.run_folder import durable
from dynalign.run_folder.layout import ANSWERS

FORMAT = 1
"""Of set.json and of the identity in it: a change of what the same settings give raises it."""
PLACE = "--out"
STATE = "set.json"
"""Identity and figures of a set, in its folder."""
_SETTINGS = (
    "kind",
    "seed",
    "steered",
    "prompts_per_goal",
    "rounds",
    "attempts",
    "tries",
    "threshold",
    "min_characters",
    "max_characters",
    "heldout_share",
    "similarity",
)
"""Settings that change the set. Count, pace, prices and budgets do not."""

Identity = Mapping[str, object]
"""What a set is made from: name for people → value, or the hash of a text."""


@dataclass(frozen=True)
class SetFolder:
    """The files of a set: `SetFolder(Path("my-prompts"))`."""

    path: Path
    """The folder."""

    @property
    def state(self) -> Path:
        """Identity and figures."""
        return self.path / STATE

    @property
    def answers(self) -> Path:
        """The journal of the endpoints."""
        return self.path / ANSWERS

    @property
    def lock(self) -> Path:
        """Held by the command that works on the set."""
        return self.path / "lock"


def identity(plan: MakingPlan, addresses: Mapping[Agent, str], sets: Mapping[str, Sequence[str]]) -> Identity:
    """What a set is made from.

    addresses: agent → where its model is asked. sets: name → texts of the sets that it must not repeat."""
    found: dict[str, object] = {name: vars(plan.settings)[name] for name in _SETTINGS}
    found["taxonomy"] = short_hash({axis: list(values) for axis, values in plan.taxonomy.items()})
    found["agents"] = plan.agents.content_hash
    found["judge.values"] = short_hash([plan.value.text, list(plan.value.own_words)])
    found |= {f"repeats nothing of {name}": short_hash(list(texts)) for name, texts in sorted(sets.items())}
    for agent in AGENTS:
        settings = plan.agent(agent)
        found[f"{agent}: model"] = plan.models[agent]
        found[f"{agent}: address"] = addresses[agent]
        found[f"{agent}.temperature"] = settings.temperature
        found[f"{agent}.max_tokens"] = settings.max_tokens
    return found


def short_hash(content: object) -> str:
    """16 hexadecimal characters of SHA-256 over the content as JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def refuse_other_set(folder: SetFolder, wanted: Identity | None) -> bool:
    """Whether the folder holds a set that was begun from the same. Raises UserError for anything else.

    wanted: None looks only whether there is room for a set or a set is there."""
    if not folder.path.exists():
        return False
    if not folder.state.exists():
        own = (folder.lock.name, folder.answers.name)
        left = [each.name for each in folder.path.iterdir() if not each.name.startswith(own)]
        if not left:
            return False
        rule = f"holds {sorted(left)[0]}, and no set of prompts that could be continued"
        raise UserError([Mistake(PLACE, str(folder.path), rule, "name a new or an empty folder")])
    try:
        state = json.loads(folder.state.read_bytes())
        there = state["identity"]
        number = state["format"]
        there.items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        rule = f"cannot be read ({type(error).__name__})"
        raise UserError([Mistake(str(folder.state), None, rule, "name another folder")]) from None
    if number != FORMAT:
        rule = f"has format {number}; this version of dynalign writes {FORMAT}"
        raise UserError([Mistake(str(folder.state), None, rule, "name another folder")])
    mistakes = [] if wanted is None else _changes(folder, there, wanted)
    if mistakes:
        raise UserError(mistakes)
    return True


def _changes(folder: SetFolder, there: Identity, wanted: Identity) -> list[Mistake]:
    missing = "nothing"
    return [
        Mistake(
            name,
            wanted.get(name, missing),
            f"would mix two sets: the one in {folder.path} was begun with {there.get(name, missing)!r}",
            "set it back, or name another folder with --out",
        )
        for name in dict.fromkeys([*wanted, *there])
        if there.get(name, missing) != wanted.get(name, missing)
    ]


def write_state(folder: SetFolder, made_from: Identity, figures: Mapping[str, object]) -> None:
    """Writes set.json. figures: what is known of the set. Raises OSError."""
    state = {"format": FORMAT, "identity": dict(made_from), **figures}
    durable.write(folder.state, json.dumps(state, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def held(folder: SetFolder) -> Iterator[None]:
    """The folder, made if it is absent, for this process alone. Raises UserError if another one holds it."""
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder.lock, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        rule = f"cannot be written to ({error.strerror or error})"
        raise UserError([Mistake(PLACE, str(folder.path), rule, "name another folder")]) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            rule = "is being written by another command"
            remedy = "wait until it has ended, or name another folder"
            raise UserError([Mistake(PLACE, str(folder.path), rule, remedy)]) from None
        yield
    finally:
        os.close(descriptor)
