"""Judges that read the frame of a message: each grade is a function of what stands between the delimiters.

Simulated: the model. It believes the frame alone, so that a candidate which breaks it gets another grade, and
its rationale repeats the candidate, as that of a gullible judge would. White space is not compared: a
spelling of a tag is broken by a space.
"""

import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from dynalign.configs.sections.judge import JudgeSettings
from dynalign.endpoint.base import Question
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.engine.base import EngineRequest, EngineResult
from dynalign.rollout.judges.value_texts import ValueTexts, texts_of
from tests.worlds.scripted_askers import grade, sure

_CANDIDATE = re.compile(r"<candidate(?: number=\"\d+\")?>\n(.*?)\n</candidate>", re.DOTALL)
GRADES = 6


def bare(text: str) -> str:
    return "".join(text.split())


def candidates_in(message: str) -> list[str]:
    """What stands between the delimiters of a judge's message."""
    return _CANDIDATE.findall(message)


def grade_of(text: str, judge: str = "") -> int:
    """The grade that a judge gives to a candidate's text: some number, always the same."""
    return zlib.crc32(f"{judge}/{bare(text)}".encode()) % GRADES


def order_of(texts: Sequence[str]) -> list[int]:
    """Numbers of the candidates, best first."""
    return sorted(range(1, len(texts) + 1), key=lambda number: zlib.crc32(bare(texts[number - 1]).encode()))


def written(message: str, judge: str = "") -> str:
    """The JSON answer to a message, which quotes a candidate."""
    texts = candidates_in(message)
    if "<candidate number=" in message:
        return json.dumps({"rationale": texts[0], "order": order_of(texts)})
    (text,) = texts
    return grade(grade_of(text, judge), text)


def framed(question: Question) -> str | tuple[float, ...]:
    """What an endpoint says. It is a judge by its model's name."""
    message = question.messages[-1].content
    if question.choices:
        (text,) = candidates_in(message)
        return sure(grade_of(text, question.model))
    return written(message, question.model)


class FramedEngine:
    """An engine that reads the tokens of a context, and keeps the requests."""

    def __init__(self, contexts: Contexts) -> None:
        self.requests: list[EngineRequest] = []
        self._contexts = contexts

    async def generate(self, request: EngineRequest) -> EngineResult:
        self.requests.append(request)
        message = self._contexts.tokenizer.decode(request.token_ids, skip_special_tokens=False)
        if request.choice_ids:
            (text,) = candidates_in(message)
            return EngineResult((), (), "stop", (), choice_logprobs=sure(grade_of(text)))
        answer = tuple(self._contexts.tokenizer.encode(written(message), add_special_tokens=False))
        return EngineResult(answer, (), "stop", ())


@dataclass(frozen=True)
class RememberingContexts(Contexts):
    """Contexts that make each judge's context once: several judges ask the same."""

    made: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)

    def judge_context(self, message: str, prefill: str) -> tuple[int, ...]:
        if (message, prefill) not in self.made:
            self.made[message, prefill] = super().judge_context(message, prefill)
        return self.made[message, prefill]


def remembering(contexts: Contexts) -> RememberingContexts:
    return RememberingContexts(*(contexts.__dict__[each.name] for each in fields(Contexts)))


def short_texts(settings: JudgeSettings) -> ValueTexts:
    """The shipped frames around a short value, so that many contexts are made in a second."""
    texts = texts_of(None, settings)
    return replace(
        texts,
        definition="A value.",
        rubrics=dict.fromkeys(texts.rubrics, "0 to 5."),
        stances=dict.fromkeys(texts.stances, "Look for harm."),
    )
