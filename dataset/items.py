"""An item: one attempt at one place of a set of prompts, from its cell to accepted, rejected or failed.

    asked ─► written ─► criticised ─► (refined ─► criticised)* ─► accepted | rejected(reason) | failed(reason)

A set has `count` places. A place whose item does not get in is asked for again, in the same cell, by an
item with the next attempt.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

AXES = ("domain", "situation", "stakeholder", "region", "severity")
"""What a cell consists of. `severity` is empty in prompts that are no dilemma."""

Fate = Literal["open", "accepted", "rejected", "failed"]
"""What has become of an item. `open`: nothing yet."""
FATES: tuple[Fate, ...] = ("accepted", "rejected", "failed")
"""Those of an item that has ended."""


class ItemKey(NamedTuple):
    """Names an item, and orders all: the first attempts of all places, then the second ones, …

    Example, the third attempt at the eleventh place: `ItemKey(attempt=2, place=10)`.
    """

    attempt: int
    """Items of this place before this one."""
    place: int
    """Index of the place in the set."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a prompt comes from.

    Example: `Cell("farming", "a decision is due today", "a tenant", "the Andes")`.
    """

    domain: str
    """Part of life."""
    situation: str
    """What the person is in."""
    stakeholder: str
    """Who the person is."""
    region: str
    """Where the person lives."""
    severity: str = ""
    """How much is at stake in a dilemma; empty in other prompts."""


@dataclass(frozen=True, slots=True)
class Criticism:
    """What the critic says of one text.

    Example: `Criticism(deductions={"realistic": 10}, disqualified=(), score=90, difficulty=3, feedback="…")`.
    """

    deductions: dict[str, int]
    """Name → points that are taken from 100."""
    disqualified: tuple[str, ...]
    """Names of what excludes the text, whatever its score."""
    score: int
    """What is left of 100 points; at least 0."""
    difficulty: int
    """1: anybody can answer; 5: few experts can."""
    feedback: str
    """What to change, in words."""


@dataclass(frozen=True, slots=True)
class Draft:
    """One text of an item, and what was said of it.

    Example: `Draft("My neighbour …", {}, Criticism({}, (), 100, 3, ""), None)`.
    """

    prompt: str
    """The text."""
    extras: dict[str, str]
    """Further fields of the writer, such as the personas of a dilemma."""
    criticism: Criticism | None = None
    """The critic's; None where the text was sent back without asking the critic, or nothing came."""
    fault: str | None = None
    """What the code itself found: `own_words`, `too_short`, `too_long`; None for nothing."""


@dataclass(frozen=True, slots=True)
class PromptItem:
    """One attempt at one place, with everything that led to its fate.

    Example, just begun: `PromptItem(ItemKey(0, 10), Cell("farming", "…", "a tenant", "the Andes"), 71203)`.
    """

    key: ItemKey
    """Its name and its turn."""
    cell: Cell
    """Where its prompt has to come from; the same for all attempts at a place."""
    seed: int
    """Of its questions; 31 bits of a hash of the set's seed, cell, place and attempt."""
    goal: str = ""
    """What the writer was given; empty as long as there is none."""
    rounds: tuple[Draft, ...] = ()
    """Its texts, oldest first. The last one is the prompt."""
    tries: int = 0
    """Unreadable answers to the question that is asked now."""
    fate: Fate = "open"
    """What has become of it."""
    reason: str = ""
    """Why it was rejected or failed: a name, such as `weak_realistic`, `duplicate` or `unreadable_critic`."""
    detail: str = ""
    """The same as a clause, where there is more to say, such as which prompt it repeats."""

    @property
    def prompt(self) -> str:
        """Its newest text; empty before there is one."""
        return self.rounds[-1].prompt if self.rounds else ""

    @property
    def extras(self) -> dict[str, str]:
        """The further fields of its newest text."""
        return self.rounds[-1].extras if self.rounds else {}

    @property
    def score(self) -> int | None:
        """The newest score; None before there is one."""
        criticism = self.rounds[-1].criticism if self.rounds else None
        return None if criticism is None else criticism.score


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a text may not be in the set.

    Example: `Objection("duplicate", "0.91 of its 5-grams are in place 17, attempt 0")`.
    """

    reason: str
    """A name, which is counted: `duplicate`, `contaminated`."""
    detail: str
    """A clause for people."""


class SetFilter(Protocol):
    """Looks at the texts that agents and critic have let through, one after another in the order of their
    keys, and therefore the same in every run."""

    def objection(self, key: ItemKey, text: str) -> Objection | None:
        """Why the text may not be in the set. None: it is in the set from now on, for the texts after it."""
        ...


@dataclass
class NoRepetition:
    """The least filter: refuses a text that is in the set already, whatever its case and white space.

    Example: `NoRepetition().objection(ItemKey(0, 0), "How?")` is None.
    """

    key_of: dict[str, ItemKey] = field(default_factory=dict)
    """Text → who has it."""

    def objection(self, key: ItemKey, text: str) -> Objection | None:
        """As `SetFilter.objection`."""
        first = self.key_of.setdefault(" ".join(text.casefold().split()), key)
        if first == key:
            return None
        return Objection("duplicate", f"has the text of place {first.place}, attempt {first.attempt}")
