"""Asks a model the items of a task: from an item to a question, from an answer to what the harness reads."""

import asyncio
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dynalign.configs.errors import EndpointRefused
from dynalign.endpoint.base import Answer, Asker, Message, Question
from dynalign.evaluation.suites.harness import HarnessTask, Item
from dynalign.evaluation.suites.tasks import SuiteTask

_WORD = "(?:think|thinking|thought|thoughts|reason|reasoning)"
_THOUGHT_END = re.compile(rf"</{_WORD}>|\[/THINK\]|<\|channel\|>final<\|message\|>")
_THOUGHT_START = re.compile(rf"\s*(?:<{_WORD}>|\[THINK\]|<\|channel\|>analysis)")
_NAMED = re.compile(r"\(([A-Z])\)|\b(Yes|No)\b|\b([A-Z])\b")
"""A label in a sentence: `(B)`, `Yes`, `B`."""


@dataclass(frozen=True)
class Asking:
    """How a suite is asked: `Asking("smollm2", temperature=0.6, seed=0, thinking_tokens=4096)`."""

    model: str
    """The name under which the model is asked."""
    temperature: float = 0.6
    """Of repeated answers; a single answer is the most likely one (temperature 0)."""
    seed: int = 0
    """Of repeated answers."""
    thinking_tokens: int = 0
    """Tokens that a model may think, besides those of the task. Above 0, labels are read from the text."""


@dataclass(frozen=True)
class ItemAnswers:
    """What a model answered to one item: `ItemAnswers("knowledge/3", ("B",), cut=0, unread=0)`."""

    item: str
    """The item's id."""
    texts_K: tuple[str, ...]
    """What the harness reads of each repeat: text behind its thinking, or a label; empty where there is none.
    No repeats: the endpoint refused the question."""
    cut: int
    """Answers that reached their most tokens."""
    unread: int
    """Answers without a text behind the thinking, or without a label. They are judged, as wrong."""


def question_of(task: SuiteTask, item: Item, how: Asking) -> Question:
    """The question for all repeats of an item."""
    reads_tokens = bool(item.labels) and not how.thinking_tokens
    return Question(
        how.model,
        (Message("user", item.question),),
        n=task.repeats,
        max_tokens=task.max_tokens + how.thinking_tokens,
        temperature=0.0 if task.repeats == 1 else how.temperature,
        seed=how.seed,
        choices=item.labels if reads_tokens else (),
    )


async def ask_task(asker: Asker, task: HarnessTask, how: Asking) -> tuple[ItemAnswers, ...]:
    """A model's answers to all items of a task, in their order.

    A question that the endpoint refuses, as for its length, is an item without answers. Raises
    EndpointRefused if it refuses all, and what else `Asker.ask` raises."""
    refusals: list[EndpointRefused] = []

    async def ask(item: Item) -> ItemAnswers:
        try:
            answers = await asker.ask(question_of(task.task, item, how))
        except EndpointRefused as refused:
            refusals.append(refused)
            return ItemAnswers(item.id, (), 0, 0)
        return read(item, answers.answers_N)

    asking = [asyncio.create_task(ask(item)) for item in task.items]
    try:
        found = await asyncio.gather(*asking)
    finally:
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    if len(refusals) == len(task.items):
        raise refusals[0]
    return tuple(found)


def read(item: Item, answers: Sequence[Answer]) -> ItemAnswers:
    """What the harness reads of the answers to an item."""
    texts = []
    for answer in answers:
        text = behind_thinking(answer.text)
        texts.append(label_in(item.labels, text, answer.choice_logprobs) if item.labels else text)
    cut = 0 if item.labels else sum(answer.finish_reason == "length" for answer in answers)
    return ItemAnswers(item.id, tuple(texts), cut, sum(not text.strip() for text in texts))


def behind_thinking(text: str) -> str:
    """The answer behind its thinking; empty where the thinking has no end."""
    *thoughts, answer = _THOUGHT_END.split(text)
    if not thoughts:
        return "" if _THOUGHT_START.match(text) else text
    return answer.lstrip()


def label_in(labels: Sequence[str], text: str, logprobs: Sequence[float] | None) -> str:
    """The label that an answer gives: the likeliest first token where the server reports any of them,
    otherwise the last one that the text names; "" where there is neither."""
    if logprobs is not None and any(math.isfinite(each) for each in logprobs):
        return max(zip(logprobs, labels, strict=True), key=lambda pair: pair[0])[1]
    named = [next(part for part in found.groups() if part) for found in _NAMED.finditer(text)]
    return next((name for name in reversed(named) if name in labels), "")


def scores_of(task: HarnessTask, answers: Sequence[ItemAnswers]) -> list[tuple[float, ...]]:
    """The harness's scores, for each item one per repeat; none for an item without answers."""
    repeats = max((len(each.texts_K) for each in answers), default=0)
    found: list[list[float]] = [[] for _ in answers]
    for repeat in range(repeats):
        texts = [each.texts_K[repeat] if repeat < len(each.texts_K) else None for each in answers]
        for place, score in enumerate(task.scores(texts)):
            if score is not None:
                found[place].append(score)
    return [tuple(scores) for scores in found]
