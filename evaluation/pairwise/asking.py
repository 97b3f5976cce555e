"""Asks models for answers, and judges for verdicts. Whoever is asked is an `Asker`, behind a journal.

    prompts ─► the model under test ─┐
       └─────► the other model ──────┴─► pairs ─► each judge, in both orders ─► verdicts

Questions and seeds depend on prompts and settings alone, so a second call asks the same questions, and what
the journal holds of them is not asked again.

A failed call ends the work with its error: the command is run again and goes on. A question that cannot be
put (EndpointRefused) is `refused`, and the others go on; if none could be put, the error is raised.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, TypeVar

from dynalign.configs.errors import EndpointRefused
from dynalign.endpoint.base import Answer, Asker, Message, Question
from dynalign.endpoint.structured import Unreadable, read_object
from dynalign.evaluation.pairwise.records import Label, ModelAnswer, PairPrompt, PairVerdicts
from dynalign.rollout.answer_form import thinking_tags
from dynalign.rollout.engine.base import request_seed
from dynalign.rollout.judges.sampled import reasoned_schema
from dynalign.rollout.judges.value_texts import as_data, filled

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[int], None]
Criterion = Literal["value", "general"]
"""`value`: which answer serves the value definition more. `general`: which one helps more."""

_LABELS: dict[object, tuple[Label, Label]] = {
    "A": ("win", "loss"),
    "B": ("loss", "win"),
    "tie": ("tie", "tie"),
}
"""The verdict → what it says of the model whose answer is shown as A, and of the one shown as B."""
_GRAMMAR = '{"enum":["A","B","tie"]}'


def _nothing(done: int) -> None:
    """No progress is shown."""


@dataclass(frozen=True, slots=True)
class AskedSide:
    """A model under test, and how it is asked.

    Example: `AskedSide("base, prompted", asker, "SmolLM2-135M", system="Let Collective Agency grow …")`.
    """

    name: str
    """Its name in the report."""
    asker: Asker
    """Whoever carries the questions."""
    model: str
    """The name under which it is served."""
    system: str | None = None
    """The system prompt; None for a plain user's call."""


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """How the models under test answer: `AnswerSettings(512, 1.0, 1)`."""

    max_tokens: int
    """Most tokens of one answer, thinking included."""
    temperature: float
    """Of the sampling."""
    seed: int
    """Of the evaluation; each prompt's own is made of it."""
    in_flight: int = 64
    """Questions at one time; the endpoint's own limit comes after it."""


@dataclass(frozen=True, slots=True)
class PairJudge:
    """A judge of pairs: `PairJudge("gpt-oss-20b", asker, "gpt-oss-20b", template, "Collective Agency …")`."""

    name: str
    """Its name in the report."""
    asker: Asker
    """Whoever carries the questions."""
    model: str
    """The name under which it is served."""
    template: str
    """Its message, with {task}, {first}, {second}, and for the criterion `value` {definition}."""
    definition: str
    """The value definition; empty where the template has no place for it."""
    max_tokens: int = 256
    """Most tokens of a verdict, rationale included."""
    seed: int = 0
    """Of the evaluation."""
    in_flight: int = 64
    """Questions at one time."""


def judge_template(criterion: Criterion) -> str:
    """The shipped message of a judge of pairs."""
    return files("dynalign.evaluation.pairwise").joinpath(f"judge_{criterion}.txt").read_text("utf-8").strip()


async def write_answers(
    side: AskedSide, prompts: Sequence[PairPrompt], settings: AnswerSettings, progress: Progress = _nothing
) -> tuple[ModelAnswer, ...]:
    """One answer per prompt. Raises what `Asker.ask` raises; EndpointRefused only if every question was
    refused."""
    refusals: list[EndpointRefused] = []

    async def answer(prompt: PairPrompt) -> ModelAnswer:
        try:
            found = (await side.asker.ask(answer_question(side, prompt, settings))).answers_N[0]
        except EndpointRefused as error:
            refusals.append(error)
            return ModelAnswer("", "refused")
        return ModelAnswer(without_thinking(found.text), found.finish_reason)

    answers = await _all(answer, prompts, settings.in_flight, progress)
    if refusals and len(refusals) == len(prompts):
        raise refusals[0]
    return tuple(answers)


def answer_question(side: AskedSide, prompt: PairPrompt, settings: AnswerSettings) -> Question:
    """What a model under test is asked."""
    system = () if side.system is None else (Message("system", side.system),)
    return Question(
        side.model,
        (*system, Message("user", prompt.prompt)),
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        seed=request_seed(settings.seed, "answer", prompt.key),
    )


async def judge_pairs(
    judge: PairJudge,
    prompts: Sequence[PairPrompt],
    answers: Sequence[ModelAnswer],
    others: Sequence[ModelAnswer],
    progress: Progress = _nothing,
) -> tuple[PairVerdicts, ...]:
    """One judge's verdicts of each pair, in both orders. Raises as `write_answers`.

    An empty answer loses without a question, and two equal ones are a tie."""
    refusals: list[EndpointRefused] = []
    asked = 0

    async def verdict(prompt: PairPrompt, first: str, second: str, order: str) -> tuple[object, str]:
        """The verdict, None where it cannot be read; and the judge's words."""
        nonlocal asked
        asked += 1
        seed = request_seed(judge.seed, "pair", prompt.key, order)
        try:
            answers = await judge.asker.ask(pair_question(judge, prompt.prompt, first, second, seed))
        except EndpointRefused as error:
            refusals.append(error)
            return "refused", str(error.cause)
        found = answers.answers_N[0]
        return read_verdict(found, judge.max_tokens), found.text

    async def pair(row: tuple[PairPrompt, ModelAnswer, ModelAnswer]) -> PairVerdicts:
        prompt, answer, other = row
        known = without_judge(answer, other)
        if known is not None:
            return PairVerdicts(known, known, asked=False)
        (one, said_first), (two, said_second) = await asyncio.gather(
            verdict(prompt, answer.text, other.text, "first"),
            verdict(prompt, other.text, answer.text, "second"),
        )
        return PairVerdicts(_label(one, 0), _label(two, 1), True, said_first, said_second)

    rows = list(zip(prompts, answers, others, strict=True))
    verdicts = await _all(pair, rows, max(1, judge.in_flight // 2), progress)
    if refusals and len(refusals) == asked:
        raise refusals[0]
    return tuple(verdicts)


def pair_question(judge: PairJudge, task: str, first: str, second: str, seed: int) -> Question:
    """What a judge is asked about two answers in one order. The answers are data: none can close a tag."""
    values = {
        "definition": judge.definition,
        "task": as_data(task),
        "first": as_data(first),
        "second": as_data(second),
    }
    return Question(
        judge.model,
        (Message("user", filled(judge.template, values)),),
        max_tokens=judge.max_tokens,
        temperature=0.0,
        seed=seed,
        json_schema=reasoned_schema("verdict", _GRAMMAR, judge.max_tokens),
    )


def read_verdict(answer: Answer, max_tokens: int) -> object:
    """`A`, `B` or `tie`, from the object in the answer alone; None where there is none, or several."""
    text = without_thinking(answer.text)
    found = read_object(
        Answer(text, answer.finish_reason), reasoned_schema("verdict", _GRAMMAR, 4 * max_tokens)
    )
    return None if isinstance(found, Unreadable) else found["verdict"]


def without_judge(answer: ModelAnswer, other: ModelAnswer) -> Label | None:
    """What needs no judge: an empty answer loses, two equal ones are a tie. None for all others."""
    if answer.text.strip() == other.text.strip():
        return "tie"
    if answer.is_empty or other.is_empty:
        return "loss" if answer.is_empty else "win"
    return None


def without_thinking(text: str) -> str:
    """What follows the thinking, for a server that leaves it in the text. Empty if the thinking has no
    end."""
    tags = thinking_tags([text])
    if tags is not None:
        return text.rpartition(tags[1])[2].lstrip("\n")
    return "" if text.lstrip().startswith(("<think>", "<thinking>")) else text


def _label(verdict: object, place: int) -> Label:
    """What a verdict says of the model under test, whose answer is at a place: 0 for A, 1 for B."""
    if verdict == "refused":
        return "refused"
    found = _LABELS.get(verdict)
    return "unread" if found is None else found[place]


async def _all(
    work: Callable[[T], Awaitable[R]], items: Sequence[T], in_flight: int, progress: Progress
) -> list[R]:
    """The results in the order of the items. The first error ends the rest."""
    room = asyncio.Semaphore(in_flight)
    done = 0

    async def one(item: T) -> R:
        nonlocal done
        async with room:
            result = await work(item)
        done += 1
        progress(done)
        return result

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
