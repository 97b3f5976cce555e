"""One question to one respondent, and its score: the interface of `expected` and `sampled`."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from dynalign.rollout.judges.respondents import Respondent
from dynalign.rollout.records import ParseStatus

GradeStatus = Literal["parsed", "unparsed", "unreachable"]


class Grade(NamedTuple):
    """What came of one question: Grade(3.4, "parsed", None, (0.0, 0.0, 0.1, 0.4, 0.5, 0.0), 0.93)."""

    score: float | None
    """Points, 0 to 5; None if there is none."""
    status: GradeStatus
    """See `ParseStatus`."""
    text: str | None = None
    """The raw answers, one per line, or why there is none."""
    probs: tuple[float, ...] | None = None
    """The distribution over the grades, where one token was read."""
    mass: float | None = None
    """Raw probability of all grades together, where one token was read."""
    answers: tuple[str, ...] = ()
    """The raw answers apart, where texts were read."""


class Grader(Protocol):
    """Asks one respondent for a score."""

    respondent: Respondent
    """Who is asked."""

    async def grade(self, message: str, seed: int, fresh: bool) -> Grade:
        """The score that the message asks for. Parameters and errors: see `Judge.score`."""
        ...


def first_failure(statuses: Sequence[ParseStatus]) -> Literal["unparsed", "unreachable"] | None:
    """The status of a score that needs all of these: None if all are parsed, `unreachable` if a call failed,
    `unparsed` otherwise."""
    if "unreachable" in statuses:
        return "unreachable"
    return "unparsed" if "unparsed" in statuses else None
