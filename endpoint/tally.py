"""What has been asked so far, by whom, and what it has cost: the figures of a live line."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dynalign.endpoint.base import Answers


@dataclass
class Tally:
    """The figures of one purpose, since the process began."""

    asked: int = 0
    """Questions."""
    from_journal: int = 0
    """Of them, answered from the journal, or by a request that an equal question had sent."""
    answered: int = 0
    """Of them, answered by the endpoint."""
    failed: int = 0
    """Of them, without an answer."""
    requests: int = 0
    """Requests that were sent, retries included."""
    prompt_tokens: int = 0
    """Read, by the endpoint's bills."""
    completion_tokens: int = 0
    """Written, by the endpoint's bills."""
    cost: float = 0.0
    """In the currency of the prices."""
    unmetered: int = 0
    """Responses without a count of tokens, which are counted by their upper bound."""

    def billed(self, answers: Answers, cost: float) -> None:
        """Adds the bill of one response."""
        self.prompt_tokens += answers.prompt_tokens
        self.completion_tokens += answers.completion_tokens
        self.cost += cost
        self.unmetered += not answers.metered


@dataclass
class Tallies:
    """The tally of each purpose, for one endpoint in one process."""

    clock: Callable[[], float] = time.monotonic
    """In seconds."""
    by_purpose: dict[str, Tally] = field(default_factory=dict)
    """Purpose → tally."""
    began_s: float | None = None
    """When the first question was sent, on the clock."""

    def of(self, purpose: str) -> Tally:
        """The tally of a purpose, begun if it is new."""
        return self.by_purpose.setdefault(purpose, Tally())

    def began(self) -> None:
        """A question is sent; the rate counts from the first."""
        self.began_s = self.clock() if self.began_s is None else self.began_s

    def total(self) -> Tally:
        """The sum over all purposes."""
        total = Tally()
        for tally in self.by_purpose.values():
            for name, value in vars(tally).items():
                setattr(total, name, vars(total)[name] + value)
        return total

    def per_second(self) -> float:
        """Answers of the endpoint per second, since the first question."""
        passed_s = 0.0 if self.began_s is None else self.clock() - self.began_s
        return self.total().answered / passed_s if passed_s > 0 else 0.0

    def line(self, expected: int | None = None) -> str:
        """One line for people. expected: questions in all, for an estimate of the final cost."""
        total = self.total()
        done = total.from_journal + total.answered
        tokens = total.prompt_tokens + total.completion_tokens
        parts = [f"{done:,}" + (f" of {expected:,}" if expected else "") + " answered"]
        parts += [
            f"{total.from_journal:,} from the journal",
            f"{self.per_second():.1f}/s",
            f"{tokens:,} tokens",
        ]
        if total.cost:
            parts.append(f"cost {total.cost:.4g}")
        if total.answered and expected and expected > done:
            share = 1 + (expected - done) / total.answered
            estimate = f"{total.cost * share:.4g}" if total.cost else f"{tokens * share:,.0f} tokens"
            parts.append(f"at the end about {estimate}")
        if total.failed:
            parts.append(f"{total.failed:,} failed")
        if total.unmetered:
            parts.append(f"{total.unmetered:,} without a count of tokens, counted by their upper bound")
        return ", ".join(parts)
