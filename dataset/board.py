"""The items of a set: which is begun next, and which enters the set, whatever the order in which they end.

    first attempts of all places ─► second attempts of those that were not accepted ─► …

Items may end in any order. Whether an item enters the set is decided in the order of the keys (attempt, then
place), because a text may not repeat an earlier one. An item that ends early waits for its turn; its place is
asked for again as soon as it is known that the item does not enter. So the set is a function of the answers.
"""

import heapq
from collections import Counter
from dataclasses import dataclass, replace

from dynalign.dataset.agent_texts import Agent
from dynalign.dataset.item_steps import UNFINISHED
from dynalign.dataset.items import ItemKey, PromptItem, SetFilter
from dynalign.dataset.making_plan import MakingPlan


@dataclass(frozen=True)
class FateCounts:
    """What has become of the items: asked = open + waiting + accepted + rejected + failed.

    Example: `FateCounts(3, accepted=1, rejected={"duplicate": 1}, failed={}, open={"critic": 1}, waiting=0)`.
    """

    asked: int
    """Items that were begun."""
    accepted: int
    """Of them, in the set."""
    rejected: dict[str, int]
    """Reason → items."""
    failed: dict[str, int]
    """Reason → items."""
    open: dict[str, int]
    """Agent → items that wait for it."""
    waiting: int
    """Items that the critic has let through and whose turn has not come."""

    @property
    def balanced(self) -> bool:
        """Whether the law holds."""
        parts = (self.rejected, self.failed, self.open)
        return self.asked == self.accepted + self.waiting + sum(sum(part.values()) for part in parts)


class Board:
    """The items of one set. Used by one thread."""

    def __init__(self, plan: MakingPlan, set_filter: SetFilter) -> None:
        self.plan = plan
        self.items: dict[ItemKey, PromptItem] = {}
        """Every item that was begun."""
        self.at: dict[ItemKey, Agent] = {}
        """Whom an open item waits for."""
        self._filter = set_filter
        self._to_begin = [ItemKey(0, place) for place in range(plan.settings.count)]
        self._decided: set[ItemKey] = set()
        self._attempt = 0
        self._turn = [*range(plan.settings.count)]
        self._next = 0
        self._again: list[int] = []
        self._closed = False

    def begin(self) -> PromptItem | None:
        """The next item to ask for; None if there is none now. A decision may bring another one."""
        if self._closed or not self._to_begin:
            return None
        item = self.plan.begun(heapq.heappop(self._to_begin))
        self.items[item.key] = item
        return item

    def ended(self, item: PromptItem) -> None:
        """An item has its fate, as far as it alone decides."""
        self.items[item.key] = item
        self.at.pop(item.key, None)
        if item.fate != "accepted":
            self._ask_again(item)
        self._decide()

    def close(self, reason: str) -> None:
        """No more items: the open ones fail with a reason, and those that wait have their turn."""
        self._closed = True
        for item in [each for each in self.items.values() if each.fate == "open"]:
            self.items[item.key] = replace(item, fate="failed", reason=reason, detail="it was not finished")
        self.at.clear()
        self._decide()

    def counts(self) -> FateCounts:
        """What has become of the items so far."""
        items = self.items.values()
        accepted = [item.key for item in items if item.fate == "accepted"]
        in_set = sum(key in self._decided for key in accepted)
        return FateCounts(
            asked=len(items),
            accepted=in_set,
            rejected=dict(sorted(Counter(i.reason for i in items if i.fate == "rejected").items())),
            failed=dict(sorted(Counter(i.reason for i in items if i.fate == "failed").items())),
            open=dict(Counter(self.at.get(i.key, "goals") for i in items if i.fate == "open")),
            waiting=len(accepted) - in_set,
        )

    def ordered(self) -> list[PromptItem]:
        """Every item, by its key."""
        return [self.items[key] for key in sorted(self.items)]

    def in_set(self) -> list[PromptItem]:
        """The items in the set, by place."""
        found = [item for key, item in self.items.items() if item.fate == "accepted" and key in self._decided]
        return sorted(found, key=lambda item: item.key.place)

    @property
    def has_unfinished(self) -> bool:
        """Whether items failed that would go on if the command ran again."""
        return any(item.fate == "failed" and item.reason in UNFINISHED for item in self.items.values())

    def _ask_again(self, item: PromptItem) -> None:
        following = ItemKey(item.key.attempt + 1, item.key.place)
        if item.reason not in UNFINISHED and following.attempt < self.plan.settings.attempts:
            heapq.heappush(self._to_begin, following)

    def _decide(self) -> None:
        """Gives each item its turn, up to the first one that has not ended."""
        while self._turn:
            while self._next < len(self._turn):
                item = self.items.get(ItemKey(self._attempt, self._turn[self._next]))
                if item is None and not self._closed or item is not None and item.fate == "open":
                    return
                self._next += 1
                if item is not None and not self._enters(item) and item.reason not in UNFINISHED:
                    self._again.append(item.key.place)
            self._attempt += 1
            self._turn = self._again if self._attempt < self.plan.settings.attempts else []
            self._next = 0
            self._again = []

    def _enters(self, item: PromptItem) -> bool:
        """Whether an item enters the set. One to which the filter objects is rejected."""
        self._decided.add(item.key)
        if item.fate != "accepted":
            return False
        objection = self._filter.objection(item.key, item.prompt)
        if objection is None:
            return True
        item = replace(item, fate="rejected", reason=objection.reason, detail=objection.detail)
        self.items[item.key] = item
        self._ask_again(item)
        return False
