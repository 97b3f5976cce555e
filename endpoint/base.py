"""What is asked of a model outside the rollout engines, and what it answers: messages in, answers out.

Judges, prompt generation and evaluation ask by the one protocol `Asker`. Behind it stands an
OpenAI-compatible endpoint, or a pool of this project's own engines with fixed weights.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat.

    Example: `Message("user", "How many days has a leap year?")`.
    """

    role: Role
    """Who speaks."""
    content: str
    """The text."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request for `n` answers to the same messages.

    Example, a judge's one-token verdict:

        Question("judge", (Message("user", "Grade this answer: …"),), max_tokens=1, temperature=0.0,
                 choices=("0", "1", "2", "3", "4", "5"), prefill="Grade: ")
    """

    model: str
    """The name under which the model is served."""
    messages: tuple[Message, ...]
    """The chat so far, oldest first; the last one is the user's."""
    n: int = 1
    """Answers wanted."""
    max_tokens: int = 256
    """Most tokens of one answer."""
    temperature: float = 1.0
    """0: the most likely token each time."""
    seed: int | None = None
    """Seed of the sampling, 31 bits; None: the server's choice."""
    json_schema: str | None = None
    """JSON schema that the answer has to obey; None: free text."""
    choices: tuple[str, ...] = ()
    """Texts of one token each, whose log-probabilities as the answer's first token are wanted."""
    prefill: str = ""
    """Text with which the answer begins. Not every server can do that; one that cannot is asked without."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Example: `Answer("4", "stop", (-9.1, -7.2, -4.0, -1.9, -0.2, -3.3))`.
    """

    text: str
    """What the model wrote, without the prefill."""
    finish_reason: Literal["stop", "length", "refused"]
    """`stop`: it ended by itself. `length`: it reached `max_tokens`. `refused`: the server or the model
    declined to answer."""
    choice_logprobs: tuple[float, ...] | None = None
    """In nats, of each of the question's `choices`; -inf for one that the server does not report. None
    without choices, or where the server reports no log-probabilities."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to one question, and what they cost.

    Example: `Answers((Answer("Yes.", "stop"),), "gpt-oss-20b", prompt_tokens=31, completion_tokens=3)`.
    """

    answers_N: tuple[Answer, ...]
    """`n` of them."""
    model: str
    """The model's name as the server reports it."""
    prompt_tokens: int
    """Tokens read, once per question."""
    completion_tokens: int
    """Tokens written, over all answers."""
    metered: bool = True
    """Whether the server has counted the tokens. False: it has not, and the two counts are upper bounds."""


class Asker(Protocol):
    """Whoever answers questions. One object serves any number of concurrent calls."""

    async def ask(self, question: Question) -> Answers:
        """The answers, kept on disk before they are returned where the asker has a journal.

        Raises EndpointRefused for what another try does not mend, EndpointUnreachable when nothing
        answered until the deadline, BudgetReached when the question would exceed the budget, and
        JournalError when its answer cannot be kept. All of them are EndpointError."""
        ...
