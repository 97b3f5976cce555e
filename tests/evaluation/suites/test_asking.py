"""From items to questions and from answers to scores: thinking, labels, refusals, repeats, kills."""

import asyncio
import math
from pathlib import Path

import pytest

from dynalign.configs.errors import EndpointRefused
from dynalign.endpoint.base import Answer, Answers, Question
from dynalign.evaluation.suites.asking import (
    Asking,
    ItemAnswers,
    ask_task,
    behind_thinking,
    label_in,
    question_of,
    read,
    scores_of,
)
from dynalign.evaluation.suites.harness import HarnessTask, Item
from dynalign.evaluation.suites.items import OWN
from dynalign.evaluation.suites.tasks import AIME, QUICK, TASKS
from tests.worlds import suite_items
from tests.worlds.asked_endpoint import asked_endpoint
from tests.worlds.scripted_endpoint import MODEL, Exchange, ScriptedEndpoint, scripted_endpoint

HOW = Asking(MODEL)
BUDGET_S = 60.0


@pytest.fixture(scope="module")
def arithmetic() -> HarnessTask:
    return HarnessTask(TASKS["arithmetic"], OWN["arithmetic"]())


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Paris.", "Paris."),
        ("<think>Is it Rome?</think>\n\nParis.", "Paris."),
        ("Is it Rome?</think>Paris.", "Paris."),  # the template has opened it
        ("<think>a</think>b<think>c</think> Paris.", "Paris."),
        ("[THINK]Rome?[/THINK]Paris.", "Paris."),
        ("<|channel|>analysis<|message|>Rome?<|end|><|channel|>final<|message|>Paris.", "Paris."),
        ("<think>Is it Rome, or rather", ""),
        ("I <think> so.", "I <think> so."),
    ],
)
def test_an_answer_is_what_stands_behind_the_thinking(text: str, answer: str) -> None:
    assert behind_thinking(text) == answer


@pytest.mark.parametrize(
    ("text", "logprobs", "label"),
    [
        ("B", (-0.1, -3.0), "A"),
        ("B", (-math.inf, -math.inf), "B"),
        ("(B) is right, not (A)... so (B).", None, "B"),
        ("The answer is A", None, "A"),
        ("neither", None, ""),
        ("C", None, ""),
    ],
)
def test_a_label_is_the_likeliest_first_token_or_what_the_text_names_last(
    text: str, logprobs: tuple[float, ...] | None, label: str
) -> None:
    assert label_in(("A", "B"), text, logprobs) == label


def test_yes_and_no_are_labels_too() -> None:
    assert label_in(("No", "Yes"), "No, it is not.", None) == "No"
    assert label_in(("No", "Yes"), "Yes", (-3.0, -0.1)) == "Yes"


def test_cut_and_empty_answers_are_counted_and_judged() -> None:
    found = read(
        Item("a/0", "?"), [Answer("<think>so", "length"), Answer("done", "length"), Answer("x", "stop")]
    )
    assert found == ItemAnswers("a/0", ("", "done", "x"), cut=2, unread=1)


def test_one_answer_is_the_likeliest_and_repeats_are_drawn_with_room_for_thinking() -> None:
    item = Item("aime25/0", "1 + 1")
    repeated = question_of(AIME, item, Asking("m", temperature=0.7, seed=3, thinking_tokens=1000))
    assert (repeated.n, repeated.temperature, repeated.seed) == (16, 0.7, 3)
    assert repeated.max_tokens == AIME.max_tokens + 1000
    assert question_of(TASKS["ifeval"], item, HOW).temperature == 0.0
    labelled = Item("knowledge/0", "?", ("A", "B"))
    assert question_of(QUICK[1], labelled, HOW).choices == ("A", "B")
    assert question_of(QUICK[1], labelled, Asking("m", thinking_tokens=500)).choices == ()


def test_scores_are_those_of_each_repeat_and_none_for_a_refused_item() -> None:
    task = HarnessTask(AIME, suite_items.AIME)
    answers = [
        ItemAnswers("aime25/0", ("\\boxed{60}", "\\boxed{1}"), 0, 0),
        ItemAnswers("aime25/1", (), 0, 0),
        ItemAnswers("aime25/2", ("62", "62"), 0, 0),
        ItemAnswers("aime25/3", ("",), 1, 1),
    ]
    assert scores_of(task, answers) == [(1.0, 0.0), (), (1.0, 1.0), (0.0,)]


class Refusing:
    """An endpoint that refuses questions that hold a word."""

    def __init__(self, word: str) -> None:
        self.word = word

    async def ask(self, question: Question) -> Answers:
        if self.word in question.messages[0].content:
            raise EndpointRefused("http://tiny/v1", "the question is too long")
        return Answers((Answer("4", "stop"),), MODEL, 1, 1)


def test_a_refused_question_is_an_item_without_answer_and_all_refused_is_an_error(
    arithmetic: HarnessTask,
) -> None:
    found = asyncio.run(ask_task(Refusing("birds"), arithmetic, HOW))
    refused = [each.item for each in found if not each.texts_K]
    assert refused == [item.id for item in arithmetic.items if "birds" in item.question]
    with pytest.raises(EndpointRefused, match="too long"):
        asyncio.run(ask_task(Refusing(""), arithmetic, HOW))


def test_a_kill_in_the_middle_repeats_at_most_the_requests_in_flight(
    arithmetic: HarnessTask, tmp_path: Path
) -> None:
    concurrency = 8
    killed_after = 20

    async def asked(server: ScriptedEndpoint, kill: asyncio.Event | None) -> tuple[ItemAnswers, ...]:
        async with asked_endpoint(
            server.address, tmp_path / "answers.sqlite", concurrency=concurrency
        ) as endpoint:
            asking = asyncio.create_task(ask_task(endpoint.asker("evaluation"), arithmetic, HOW))
            if kill is not None:
                async with asyncio.timeout(BUDGET_S):
                    await kill.wait()
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                return ()
            return await asking

    async def first(server: ScriptedEndpoint) -> None:
        kill = asyncio.Event()
        loop = asyncio.get_running_loop()

        def counting(exchange: Exchange) -> None:
            exchange.answer()
            if len(server.asked) >= killed_after:
                loop.call_soon_threadsafe(kill.set)

        server.act = counting
        await asked(server, kill)

    with scripted_endpoint() as server:
        asyncio.run(first(server))
        before = len(server.asked)
        assert killed_after <= before < len(arithmetic.items)
        server.act = lambda exchange: exchange.answer()
        found = asyncio.run(asked(server, None))
        assert all(each.texts_K for each in found)
        assert len(arithmetic.items) <= len(server.asked) <= len(arithmetic.items) + concurrency
        again = len(server.asked)
        assert asyncio.run(asked(server, None)) == found
        assert len(server.asked) == again
