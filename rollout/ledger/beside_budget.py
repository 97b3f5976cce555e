"""What may be asked beside the training groups, in tokens: one budget for all kinds that are asked so.

    + SHARE · completion tokens   of every group that is reported
    − the largest answer so far   of its kind, when something is leased (a bound before the first answer)
    + what the answer did not use when it is reported; nothing when its worker is lost
    no more than one answer of it outlives a commit

So the tokens of a step's answers are at most SHARE of its completion tokens, and one answer.
"""

from dynalign.configs.sections.capability import SHARE


class BesideBudget:
    """`tokens`: what may be spent now; below 0 where an answer took more than any before it."""

    def __init__(self) -> None:
        self.tokens = 0.0

    def earn(self, completion_tokens: int) -> None:
        """A training group of so many tokens was reported."""
        self.tokens += SHARE * completion_tokens

    def committed(self, answer_tokens: int) -> None:
        """A step ends: what it has left is not spent in another one, except for one answer of so many
        tokens."""
        self.tokens = min(self.tokens, float(answer_tokens))


class BesideAccount:
    """One kind's part in the budget.

    `tokens`: of its answers beside groups, since the ledger was opened.
    """

    def __init__(self, budget: BesideBudget) -> None:
        self.tokens = 0
        self._budget = budget
        self._largest_tokens = 0

    def reserve(self, bound_tokens: int) -> int:
        """Tokens to set aside for the next answer. bound_tokens: what it cannot exceed."""
        return self._largest_tokens or bound_tokens

    def affords(self, reserve_tokens: int) -> bool:
        """Whether so much can be set aside."""
        return self._budget.tokens >= reserve_tokens

    def set_aside(self, reserve_tokens: int) -> None:
        """An answer is asked for."""
        self._budget.tokens -= reserve_tokens

    def answered(self, tokens: int, reserve_tokens: int, beside: bool) -> None:
        """An answer took so many tokens. reserve_tokens: those that were set aside for it, if it was
        `beside` groups."""
        self._largest_tokens = max(self._largest_tokens, tokens)
        if beside:
            self._budget.tokens += reserve_tokens - tokens
            self.tokens += tokens
