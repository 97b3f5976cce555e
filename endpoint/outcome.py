"""What becomes of one request to an endpoint: answers, or a failure that says whether another try helps."""

from dataclasses import dataclass
from typing import Literal, Protocol

from dynalign.endpoint.base import Answers, Question

TEMPLATE_TOKENS = 256
"""Upper bound of what a chat template adds once, such as its own system text (harmony's has about 100)."""
MESSAGE_TOKENS = 16
"""Upper bound of what a chat template adds around each message."""


@dataclass(frozen=True, slots=True)
class FailedCall:
    """One request that brought no answer.

    Example: `FailedCall("status 429", again="until the deadline", billed=False, slow_down=True)`.
    """

    cause: str
    """A sentence without keys, headers or the question's text."""
    again: Literal["never", "some times", "until the deadline"]
    """`never`: another try would fail too. `some times`: it may pass, and each try may cost. `until the
    deadline`: the endpoint is busy or away, and has not begun with the request."""
    billed: bool
    """Whether the server may have billed it all the same: it had the request, and the answer was lost."""
    slow_down: bool = False
    """Whether it asks for fewer requests at once."""
    retry_after_s: float | None = None
    """Seconds to wait, as the endpoint asks."""
    status: int | None = None
    """HTTP status; None where there was no response."""


class Sender(Protocol):
    """Whoever sends one request. It neither retries nor waits for a turn."""

    async def send(self, question: Question, timeout_s: float) -> Answers | FailedCall:
        """The outcome, at most `timeout_s` seconds later. There may be fewer answers than the question's `n`,
        and there is at least one."""
        ...


def most_prompt_tokens(question: Question) -> int:
    """Upper bound of the tokens that a server reads for a question: a token has at least one byte."""
    texts = [message.content for message in question.messages]
    texts += [question.prefill, question.json_schema or ""]
    size_bytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
    return size_bytes + TEMPLATE_TOKENS + MESSAGE_TOKENS * (len(question.messages) + 1)


def most_completion_tokens(question: Question) -> int:
    """Upper bound of the tokens that a server writes for a question."""
    return question.n * question.max_tokens
