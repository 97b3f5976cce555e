"""A table of rules between settings, each with the settings that it reads."""

from collections.abc import Callable
from dataclasses import dataclass

from dynalign.configs.errors import Mistake
from dynalign.configs.schema import RunSettings

Check = Callable[[RunSettings], Mistake | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Example: `Rule(("rollout.workers.min", "rollout.workers.max"), min_workers_at_most_max)`.
    """

    reads: tuple[str, ...]
    """Dotted paths of the settings that the rule reads."""
    check: Check
    """Returns the mistake, or None where the settings keep the rule."""


class RuleTable(list[Rule]):
    """Rules in the order in which they are reported."""

    def reading(self, *paths: str) -> Callable[[Check], Check]:
        """Decorator that adds a function to the table, as a rule that reads the settings at `paths`."""

        def add(check: Check) -> Check:
            self.append(Rule(paths, check))
            return check

        return add
