"""Models under test and judges by a script, for whole evaluations. A model's quality stands in its answers.

Simulated: the models, the judges, and where they are asked. Real: everything else of `evaluate pairwise`.
"""

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from dynalign.endpoint.base import Answer, Answers, Question
from dynalign.launch.commands.evaluate_opening import Purpose
from dynalign.launch.commands.evaluate_subjects import Subject
from dynalign.rollout.judges.respondents import AskedModel

Speaks = Callable[[Question], str]


class SpokenAsker:
    """Answers as `speaks` does, and keeps the questions."""

    def __init__(self, speaks: Speaks) -> None:
        self.speaks = speaks
        self.questions: list[Question] = []

    async def ask(self, question: Question) -> Answers:
        self.questions.append(question)
        return Answers((Answer(self.speaks(question), "stop"),), question.model, 100, 10)


class Opened:
    """Opens models by their names: `Opened(better=…, judge=…)`. Keeps who was open, and how many at once."""

    def __init__(self, **speaks: Speaks) -> None:
        self.askers = {name: SpokenAsker(each) for name, each in speaks.items()}
        self.opened: list[tuple[str, str]] = []
        self.most_open = 0
        self._open = 0

    @asynccontextmanager
    async def __call__(self, subject: Subject, purpose: Purpose) -> AsyncIterator[AskedModel]:
        self.opened.append((subject.name, purpose))
        self._open += 1
        self.most_open = max(self.most_open, self._open)
        yield AskedModel(self.askers[subject.name], subject.name)
        self._open -= 1


def endpoint(folder: Path, name: str, address: str = "http://127.0.0.1:1/v1") -> str:
    """The path of an endpoint file for a model of that name."""
    file = folder / f"{name}.yaml"
    file.write_text(f"address: {address}\nmodel: {name}\n")
    return str(file)


def answers_with(quality: int, prompted: int = 0) -> Speaks:
    """A model whose answers have that quality; with a system prompt `prompted` more."""

    def speaks(question: Question) -> str:
        system = question.messages[0].role == "system"
        return f"quality {quality + prompted * system} for {question.messages[-1].content[:20]}"

    return speaks


def prefers_quality(question: Question) -> str:
    """A judge that reads the quality out of both answers, or grades one."""
    text = question.messages[-1].content
    found = [int(each) for each in re.findall(r"quality (\d+) for", text)]
    if '"score"' in (question.json_schema or ""):
        return json.dumps({"rationale": "it says so", "score": min(5, found[-1])})
    verdict = "tie" if found[0] == found[1] else "A" if found[0] > found[1] else "B"
    return json.dumps({"rationale": "it says so", "verdict": verdict})


def always_first(question: Question) -> str:
    """A judge that prefers what stands first."""
    return '{"rationale": "first", "verdict": "A"}'


def nonsense(question: Question) -> str:
    """A judge that answers no question."""
    return "I like both of them, A and B!"
