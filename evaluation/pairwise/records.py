"""What a comparison of two models consists of: prompts, answers, and verdicts in both orders."""

from dataclasses import dataclass
from typing import Literal

Label = Literal["win", "tie", "loss", "unread", "refused"]
"""What a verdict says of the model under test. `unread`: the judge's answer cannot be read. `refused`: the
question could not be put, such as one that is too long. Neither is a number."""

VALUES: dict[Label, float] = {"win": 1.0, "tie": 0.5, "loss": 0.0}
"""The labels that are numbers."""


@dataclass(frozen=True, slots=True)
class PairPrompt:
    """One prompt that both models answer.

    Example: `PairPrompt("craft-004", "How do I mend a net?", "builtin", "craft-004")`.
    """

    id: str
    """Its id in its source."""
    prompt: str
    """The user's text."""
    source: str
    """Where it comes from: `builtin`, a file, a data set."""
    cluster: str
    """The unit of every interval: its goal where the source names one, otherwise the prompt itself."""

    @property
    def key(self) -> str:
        """Unique over all sources."""
        return f"{self.source}/{self.id}"


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What a model under test answered: `ModelAnswer("Find the edges of the hole …", "stop")`."""

    text: str
    """As a reader sees it, without thinking."""
    finish_reason: Literal["stop", "length", "refused"]
    """`length`: it was cut off. `refused`: the question could not be put, or was declined."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to judge."""
        return not self.text.strip()


@dataclass(frozen=True, slots=True)
class PairVerdicts:
    """One judge's verdicts of one pair of answers, in both orders.

    Example: `PairVerdicts("win", "tie")`.
    """

    when_first: Label
    """With the answer of the model under test shown first."""
    when_second: Label
    """With it shown second."""
    asked: bool = True
    """False: nobody was asked, because an answer is empty or both are the same."""
    said_first: str = ""
    """The judge's words when it was first."""
    said_second: str = ""
    """The judge's words when it was second."""

    @property
    def value(self) -> float | None:
        """The mean over both orders: 1 a win, 0 a loss. None unless both verdicts are numbers: one order
        alone would carry the judge's bias for a place."""
        first = VALUES.get(self.when_first)
        second = VALUES.get(self.when_second)
        return None if first is None or second is None else (first + second) / 2


@dataclass(frozen=True, slots=True)
class ComparedPrompt:
    """One prompt with both answers and all verdicts.

    Example: `ComparedPrompt(prompt, ModelAnswer("Find …", "stop"), ModelAnswer("", "stop"), (verdicts,))`.
    """

    prompt: PairPrompt
    """What was asked."""
    answer: ModelAnswer
    """Of the model under test."""
    other: ModelAnswer
    """Of the model that it is compared with."""
    verdicts_J: tuple[PairVerdicts, ...]
    """One per judge."""

    @property
    def value(self) -> float | None:
        """The mean over orders and judges; None where no judge gave both verdicts."""
        values = [each.value for each in self.verdicts_J if each.value is not None]
        return sum(values) / len(values) if values else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model against another.

    Example: `Comparison("aligned", "base", ("gpt-oss-20b",), (ComparedPrompt(…),))`.
    """

    model: str
    """The name of the model under test."""
    against: str
    """The name of the other one."""
    judges: tuple[str, ...]
    """The names of the judges."""
    compared: tuple[ComparedPrompt, ...]
    """One per prompt."""
