"""The random history of a run whose prompts change."""

from typing import Any

from dynalign.rollout.ledger.values import Break, PromptChange, Scored
from dynalign.rollout.prompts import PromptOrder
from tests.worlds.ledger_world import World


class ChangingWorld(World):
    """The run, with one more event. Who asks for prompts, and their texts, are not here."""

    def __init__(self, *of_world: Any) -> None:
        self.drawn: dict[int, int] = {}
        """Group that the log names to its prompt, which is the same in every lineage."""
        self.changes: list[PromptChange] = []
        """Prompts that the ledger has taken."""
        super().__init__(*of_world)

    def open_ledger(self) -> None:
        super().open_ledger()
        assert self.ledger.state.prompt_changes == tuple(self.changes)

    def check(self) -> None:
        super().check()
        for line in self.log:
            if isinstance(line, Scored | Break):
                group_id = line.group_id if isinstance(line, Break) else line.group.group_id
                index = self.ledger.order.at(group_id).index
                assert self.drawn.setdefault(group_id, index) == index
                assert not isinstance(line, Break) or line.prompt_index == index

    def new_prompts(self) -> None:
        """Prompts come to the run at a step boundary. The ledger may die between the line in the log and its
        own state, and is asked again in any case."""
        if self.phase != "take":
            return
        order = self.ledger.order
        assert isinstance(order, PromptOrder)
        drawn = sorted(set(range(order.positions)) - order.dropped)
        dropped = self.random.sample(drawn, self.random.randrange(min(3, len(drawn))))
        before = [order.at(draw) for draw in range(self.ledger.state.issued)]
        name = f"set-{len(self.changes)}"
        change = self.ledger.plan_prompts(name, self.random.randint(0, 2), dropped)
        assert change is not None
        self.log.append(change)
        self.changes.append(change)
        if self.random.random() < 0.5:
            self.ledger.apply_prompts(change)
        else:
            self.ledger_dies()
        assert self.ledger.plan_prompts(name, 1, []) is None
        assert [self.ledger.order.at(draw) for draw in range(len(before))] == before
        after = range(change.first_draw, change.first_draw + 20)
        assert not {self.ledger.order.at(draw).index for draw in after} & set(dropped)
