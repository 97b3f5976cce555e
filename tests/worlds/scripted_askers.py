"""Whom judges ask, by a script: an engine with a list of answers, endpoints with a function of the question.

Simulated: the model. Real: contexts, texts, judges, and everything behind them.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dynalign.configs.errors import EndpointError, EndpointUnreachable
from dynalign.configs.sections.judge import JudgeSettings
from dynalign.endpoint.base import Answer, Answers, Question
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.engine.base import EngineRequest, EngineResult
from dynalign.rollout.judges.base import RunJudge
from dynalign.rollout.judges.make import SecondJudges, make_judge, make_second_judges
from dynalign.rollout.judges.respondents import AskedModel
from dynalign.rollout.judges.value_texts import texts_of

LIMIT = 100_000
Says = Callable[[Question], str | tuple[float, ...] | None | EndpointError]
"""What an endpoint says to a question: a text, log-probabilities of its choices (None: the server reports
none), or a failure."""

DOWN = EndpointUnreachable("http://judge/v1", "nothing answered")


class ScriptedEngine:
    """Answers every request with the next scripted result, and keeps the requests."""

    def __init__(self, results: Sequence[EngineResult] = ()) -> None:
        self.results = list(results)
        self.requests: list[EngineRequest] = []

    async def generate(self, request: EngineRequest) -> EngineResult:
        self.requests.append(request)
        return self.results[(len(self.requests) - 1) % len(self.results)]


class ScriptedAsker:
    """Answers every question as `says` does, for 100 tokens read and 10 written, and keeps the questions."""

    def __init__(self, says: Says) -> None:
        self.says = says
        self.questions: list[Question] = []

    async def ask(self, question: Question) -> Answers:
        self.questions.append(question)
        said = self.says(question)
        if isinstance(said, EndpointError):
            raise said
        answer = Answer(said, "stop") if isinstance(said, str) else Answer("?", "length", said)
        return Answers((answer,) * question.n, question.model, 100, 10)


def grade(score: int, reason: str = "because") -> str:
    """A sampled verdict."""
    return json.dumps({"rationale": reason, "score": score})


def sure(score: int, grades: int = 6) -> tuple[float, ...]:
    """Log-probabilities of a judge that is sure of a grade."""
    return tuple(0.0 if each == score else -math.inf for each in range(grades))


def asked(**says: Says) -> dict[str, AskedModel]:
    """Name → a model that says so, served under the name in capitals."""
    return {name: AskedModel(ScriptedAsker(each), name.upper()) for name, each in says.items()}


def questions(askers: Mapping[str, AskedModel], name: str) -> list[Question]:
    """What a scripted model was asked."""
    asker = askers[name].asker
    assert isinstance(asker, ScriptedAsker)
    return asker.questions


def made(
    contexts: Contexts, askers: Mapping[str, AskedModel], engine: Any = None, **settings: object
) -> tuple[RunJudge, SecondJudges]:
    """The judges of these settings, on the shipped texts."""
    chosen = JudgeSettings.model_validate(settings)
    texts = texts_of(None, chosen)
    side = (engine or ScriptedEngine(), contexts, texts, chosen, LIMIT, askers)
    return make_judge(*side), make_second_judges(*side)
