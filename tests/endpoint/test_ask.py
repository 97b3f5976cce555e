"""Journal, budget, pacing and client together, against a server that counts and bills."""

import asyncio
import sqlite3
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from dynalign.configs.errors import BudgetReached, EndpointRefused, EndpointUnreachable, JournalError
from dynalign.endpoint.ask import Endpoint
from dynalign.endpoint.base import Answers
from dynalign.endpoint.budget import most
from tests.worlds.asked_endpoint import asked_endpoint, question
from tests.worlds.scripted_endpoint import Act, Exchange, scripted_endpoint

MOST_TOKENS = 300
"""Of a question of this file: `most` of it, rounded up."""


def rows(file: Path, columns: str) -> list[tuple[object, ...]]:
    db = sqlite3.connect(file)
    return db.execute(f"SELECT {columns} FROM requests ORDER BY id").fetchall()


def test_an_answer_is_asked_for_once_and_read_by_every_later_process(tmp_path: Path) -> None:
    async def ask(address: str) -> tuple[list[Answers], str]:
        async with asked_endpoint(address, tmp_path / "answers") as endpoint:
            asker = endpoint.asker("judge")
            return [await asker.ask(question(each)) for each in range(3)], endpoint.account.line(expected=6)

    with scripted_endpoint() as server:
        first, line = asyncio.run(ask(server.address))
        again, line_again = asyncio.run(ask(server.address))
    assert first == again
    assert [answers.answers_N[0].text for answers in first] == ["answer 0", "answer 1", "answer 2"]
    assert len(server.billed) == 3
    assert line.startswith("3 of 6 answered, 0 from the journal, ")
    assert line.endswith("12 tokens, at the end about 24 tokens")
    assert line_again.startswith("3 of 6 answered, 3 from the journal, 0.0/s, 0 tokens")


def test_equal_questions_at_the_same_time_share_one_request(tmp_path: Path) -> None:
    async def main(address: str) -> tuple[list[Answers], Endpoint]:
        async with asked_endpoint(address, tmp_path / "answers") as endpoint:
            judge = endpoint.asker("judge")
            prompts = endpoint.asker("prompts")
            asked = [judge.ask(question(1)), prompts.ask(question(1)), judge.ask(question(1))]
            return await asyncio.gather(*asked), endpoint

    with scripted_endpoint() as server:
        answers, endpoint = asyncio.run(main(server.address))
    assert answers[0] == answers[1] == answers[2]
    assert len(server.billed) == 1
    judge, prompts = (endpoint.account.of(purpose) for purpose in ("judge", "prompts"))
    assert (judge.asked, judge.answered, judge.from_journal) == (2, 1, 1)
    assert (prompts.asked, prompts.answered, prompts.from_journal) == (1, 0, 1)


def test_one_of_several_who_wait_may_be_cancelled_and_the_others_are_answered(tmp_path: Path) -> None:
    async def main(address: str) -> Answers:
        async with asked_endpoint(address, tmp_path / "answers") as endpoint:
            asker = endpoint.asker("judge")
            first = asyncio.create_task(asker.ask(question(1)))
            second = asyncio.create_task(asker.ask(question(1)))
            await asyncio.sleep(0)
            first.cancel()
            return await second

    with scripted_endpoint() as server:
        assert len(asyncio.run(main(server.address)).answers_N) == 1


def test_a_server_that_gives_fewer_answers_is_asked_for_the_rest_with_another_seed(tmp_path: Path) -> None:
    def one(exchange: Exchange) -> None:
        exchange.body["n"] = 1
        exchange.answer()

    async def main(address: str) -> Answers:
        async with asked_endpoint(address, tmp_path / "answers") as endpoint:
            return await endpoint.asker("judge").ask(replace(question(1, n=3), seed=2**31 - 1))

    with scripted_endpoint(act=one) as server:
        answers = asyncio.run(main(server.address))
    assert [answer.text for answer in answers.answers_N] == ["answer 0", "answer 1", "answer 2"]
    assert [body["seed"] for body in server.asked] == [2**31 - 1, 0, 1]
    assert (answers.prompt_tokens, answers.completion_tokens) == (6, 6)


def test_what_was_answered_before_a_failure_is_not_asked_again(tmp_path: Path) -> None:
    def one(exchange: Exchange) -> None:
        exchange.body["n"] = 1
        exchange.answer()

    async def main(address: str) -> Answers:
        async with asked_endpoint(address, tmp_path / "answers") as endpoint:
            return await endpoint.asker("judge").ask(question(1, n=2))

    with scripted_endpoint(one, lambda exchange: exchange.error(400, "no"), one) as server:
        with pytest.raises(EndpointRefused, match="status 400: no"):
            asyncio.run(main(server.address))
        assert len(asyncio.run(main(server.address)).answers_N) == 2
    assert len(server.billed) == 2


def test_a_question_for_another_model_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async def main(address: str) -> None:
        async with asked_endpoint(address, tmp_path / "answers") as endpoint:
            await endpoint.asker("judge").ask(replace(question(1), model="large"))

    with scripted_endpoint() as server, pytest.raises(EndpointRefused, match="is set to 'tiny'"):
        asyncio.run(main(server.address))
    assert server.asked == []


def test_a_journal_that_is_locked_for_ever_gives_no_answer(tmp_path: Path) -> None:
    async def main(address: str) -> None:
        async with asked_endpoint(address, tmp_path / "answers") as endpoint:
            db = sqlite3.connect(tmp_path / "answers")
            db.execute("DROP TABLE answers")
            await endpoint.asker("judge").ask(question(1))

    with scripted_endpoint() as server, pytest.raises(JournalError, match="no such table"):
        asyncio.run(main(server.address))
    assert server.asked == []


@pytest.mark.parametrize(
    ("act", "state", "spent"),
    [
        (lambda exchange: exchange.answer(), "billed", 4),
        (lambda exchange: exchange.error(400, "no"), "not billed", 0),
        (lambda exchange: exchange.error(500, "oh"), "lost", None),
        (lambda exchange: exchange.die(30), "lost", None),
        (lambda exchange: exchange.answer(usage=None), "billed", None),
    ],
)
def test_what_a_request_has_spent_is_its_bill_or_else_its_upper_bound(
    tmp_path: Path, act: Act, state: str, spent: int | None
) -> None:
    async def main(address: str) -> tuple[int, int]:
        async with asked_endpoint(address, tmp_path / "answers", retries=0) as endpoint:
            with suppress(EndpointRefused, EndpointUnreachable):
                await endpoint.asker("judge").ask(question(1))
            return (await endpoint.budget.spent()).tokens, most(question(1), endpoint.budget.wall).tokens

    with scripted_endpoint(act=act) as server:
        tokens, bound = asyncio.run(main(server.address))
    assert tokens == (bound if spent is None else spent)
    assert rows(tmp_path / "answers", "state, tokens, purpose") == [(state, tokens, "judge")]


def test_at_the_wall_it_says_what_is_spent_and_what_more_needs_and_raising_it_continues(
    tmp_path: Path,
) -> None:
    async def ask(address: str, budget: int) -> int:
        async with asked_endpoint(address, tmp_path / "answers", budget_tokens=budget) as endpoint:
            asker = endpoint.asker("judge")
            asked = [asker.ask(question(each)) for each in range(40)]
            ended = await asyncio.gather(*asked, return_exceptions=True)
            reached = [each for each in ended if isinstance(each, BudgetReached)]
            assert len(reached) + sum(isinstance(each, Answers) for each in ended) == 40
            for error in reached:
                assert "of 400 tokens (the next request needs" in str(error)
            return len(reached)

    with scripted_endpoint() as server:
        refused = asyncio.run(ask(server.address, 400))
        assert 0 < refused < 40
        assert asyncio.run(ask(server.address, 400)) == refused, "without more, nothing more is sent"
        assert server.billed_tokens <= 400
        assert asyncio.run(ask(server.address, 40_000)) == 0
    assert len(server.billed) == 40, "raising it asks for what is missing and nothing twice"


def test_requests_in_flight_are_waited_for_before_the_wall_is_said_to_be_reached(tmp_path: Path) -> None:
    async def main(address: str) -> int:
        # Room for one reservation and eight bills: one at a time, all eight fit.
        budget = MOST_TOKENS + 8 * 4
        async with asked_endpoint(address, tmp_path / "answers", budget_tokens=budget) as endpoint:
            asker = endpoint.asker("judge")
            return len(await asyncio.gather(*[asker.ask(question(each)) for each in range(8)]))

    with scripted_endpoint() as server:
        assert asyncio.run(main(server.address)) == 8
    assert server.most_at_once == 1


def test_money_is_a_wall_by_the_prices(tmp_path: Path) -> None:
    prices = {"input_price": 10.0, "output_price": 1000.0, "budget_money": 0.02}

    async def main(address: str) -> tuple[int, float]:
        async with asked_endpoint(address, tmp_path / "answers", **prices) as endpoint:
            asker = endpoint.asker("judge")
            asked = [asker.ask(question(each)) for each in range(20)]
            ended = await asyncio.gather(*asked, return_exceptions=True)
            return sum(isinstance(each, Answers) for each in ended), endpoint.account.total().cost

    with scripted_endpoint() as server:
        answered, cost = asyncio.run(main(server.address))
    # Each is billed (2 × 10 + 2 × 1000) / 10⁶ = 0.00202, and reserves up to 0.007.
    assert answered == 7
    assert cost == pytest.approx(7 * 0.00202)
