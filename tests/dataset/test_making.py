"""A whole set: the same whatever the order of answers, every item accounted for, stopped and gone on with."""

import asyncio
import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable
from itertools import count as counting
from pathlib import Path

import pytest

from dynalign.configs.errors import BudgetReached, EndpointRefused, EndpointUnreachable
from dynalign.dataset.agent_texts import AGENTS, Agent
from dynalign.dataset.board import Board
from dynalign.dataset.items import NoRepetition
from dynalign.dataset.making import AgentModel, MakingEnd, make_set
from dynalign.dataset.own_words import named_words
from dynalign.dataset.set_folder import SetFolder
from dynalign.dataset.set_writer import write_set
from dynalign.endpoint.base import Answer, Answers, Question
from tests.worlds.jumping_clock import in_virtual_time
from tests.worlds.prompt_agents import (
    MODEL,
    AgentsAsker,
    Said,
    agent_of,
    good,
    made,
    mixed,
    number_of,
    plan_of,
)

DOWN = EndpointUnreachable("http://big/v1", "nothing answered")


def written(board: Board, folder: Path) -> str:
    """SHA-256 of the files of a set."""
    write_set(SetFolder(folder), board.ordered(), board.in_set(), board.plan.settings)
    names = ("prompts.jsonl", "prompts.parquet", "items.jsonl", "items.parquet")
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in names)).hexdigest()


def settled(board: Board) -> None:
    """Every item has a fate, and the law holds."""
    counts = board.counts()
    assert counts.asked == counts.accepted + sum(counts.rejected.values()) + sum(counts.failed.values())
    assert counts.asked == len(board.ordered())
    assert (counts.waiting, counts.open, counts.balanced) == (0, {}, True)
    assert [item for item in board.ordered() if item.fate != "accepted" and not item.reason] == []


def test_a_set_of_good_answers_fills_every_place_with_three_questions_each() -> None:
    board, end, asker = made(plan_of(count=30), good)
    assert (board.counts().accepted, end.reason, len(asker.asked)) == (30, "", 90)
    settled(board)


def test_twenty_orders_of_arrival_give_one_file(tmp_path: Path) -> None:
    plan = plan_of(count=40, seed=5)
    files = set()
    for order in range(20):
        generator = random.Random(order)
        pause_s = lambda generator=generator: generator.random() ** 4 * 0.02  # noqa: E731
        board, _, _ = made(plan, mixed, at_once=1 + 3 * order, pause_s=pause_s)
        files.add(written(board, tmp_path / str(order)))
        settled(board)
    assert len(files) == 1
    reasons = board.counts().rejected | board.counts().failed
    assert {"duplicate", "own_words", "disqualified_unsafe"} & set(reasons)
    assert "duplicate" in reasons


def test_no_prompt_holds_an_own_word_and_no_text_stands_there_twice() -> None:
    board, _, _ = made(plan_of(count=60, seed=2), mixed)
    texts = [item.prompt for item in board.in_set()]
    assert named_words(texts, board.plan.value.own_words) == []
    assert len(set(texts)) == len(texts)
    assert any(draft.fault == "own_words" for item in board.ordered() for draft in item.rounds)


def test_what_is_accepted_is_even_over_every_axis_because_a_rejected_cell_is_drawn_again() -> None:
    board, _, _ = made(plan_of(count=240, seed=1, attempts=8), mixed)
    settled(board)
    accepted = board.in_set()
    assert len(accepted) >= 238
    for axis, values in board.plan.taxonomy.items():
        counts = Counter(str(vars_of(item.cell)[axis]) for item in accepted)
        shares = [counts[value] / len(accepted) for value in values]
        entropy = -sum(share * math.log(share) for share in shares if share) / math.log(len(values))
        assert entropy >= 0.97
        assert min(shares) >= 0.5 / len(values)
    again = [item for item in board.ordered() if item.key.attempt > 0]
    assert again
    assert all(item.cell == board.plan.begun(item.key).cell for item in again)


def vars_of(cell: object) -> dict[str, str]:
    return {
        name: str(cell.__getattribute__(name)) for name in ("domain", "situation", "stakeholder", "region")
    }


def always(said: Said, share: float = 1.0, agent: str = "") -> Callable[[Question], Said]:
    """Says the same to a share of the questions, to one agent or to all, and is good otherwise."""

    def says(question: Question) -> Said:
        hit = number_of(question) % 1000 < share * 1000
        return said if hit and agent in ("", agent_of(question.json_schema or "{}")) else good(question)

    return says


@pytest.mark.parametrize("share", [0.2, 1.0])
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("no JSON at all", "unreadable"),
        (Answer("", "refused"), "refused"),
        (Answer("{", "length"), "truncated"),
        (EndpointRefused("a", "status 400"), "refused_by_server"),
        (DOWN, "unreachable"),
    ],
)
def test_every_fault_is_accounted_for(said: Said, reason: str, share: float) -> None:
    board, end, _ = made(plan_of(count=25), always(said, share))
    settled(board)
    counts = board.counts()
    assert (sum(counts.failed.values()) > 0) or share < 1.0
    assert all(each.startswith(reason) or each == "stopped" for each in counts.failed)
    assert counts.accepted == 0 if share == 1.0 else counts.accepted > 10
    assert board.has_unfinished == (said is DOWN)
    assert bool(end.reason) == (share == 1.0 and reason in ("refused_by_server", "unreachable"))


def test_a_dead_server_ends_the_making_after_a_few_questions() -> None:
    board, end, asker = made(plan_of(count=2000), always(DOWN), at_once=8)
    assert end.reason == "stopped"
    assert "20 questions in a row" in end.detail
    assert len(asker.asked) < 40
    settled(board)


def test_at_the_wall_of_the_budget_nothing_more_is_begun_and_all_is_accounted_for() -> None:
    numbers = counting()

    def says(question: Question) -> Said:
        return good(question) if next(numbers) < 100 else BudgetReached("m at a", "the budget is reached")

    board, end, asker = made(plan_of(count=500), says, at_once=10)
    settled(board)
    assert end.reason == "budget_reached"
    assert len(asker.asked) <= 120
    assert board.counts().accepted > 20
    assert board.counts().failed == {"budget_reached": board.counts().asked - board.counts().accepted}
    assert board.has_unfinished


def test_an_interrupted_set_keeps_what_it_has_and_goes_on_to_the_same_set(tmp_path: Path) -> None:
    plan = plan_of(count=40, seed=9)
    whole, _, _ = made(plan, mixed)
    board = Board(plan, NoRepetition())
    stop = asyncio.Event()

    async def run() -> MakingEnd:
        asker = AgentsAsker(mixed, lambda: 0.001)
        models: dict[Agent, AgentModel] = {agent: AgentModel(asker, MODEL) for agent in AGENTS}

        def moved() -> None:
            if len(asker.asked) > 60:
                stop.set()

        return await make_set(board, models, 8, stop, moved)

    assert asyncio.run(run()).reason == "interrupted"
    settled(board)
    assert 0 < board.counts().failed["interrupted"] <= 8
    assert 0 < board.counts().accepted < 40
    again, _, _ = made(plan, mixed)
    assert written(again, tmp_path / "again") == written(whole, tmp_path / "whole")


def test_a_place_is_given_up_after_its_attempts() -> None:
    def says(question: Question) -> Said:
        return "prose" if agent_of(question.json_schema or "{}") == "critic" else good(question)

    board, end, _ = made(plan_of(count=3, attempts=2, tries=2), says)
    assert board.counts().failed == {"unreadable_critic": 6}
    assert (end.reason, board.has_unfinished) == ("", False)


def test_dilemmas_have_two_personas_and_three_severities(tmp_path: Path) -> None:
    board, _, _ = made(plan_of(count=9, kind="dilemma"), good)
    found = board.in_set()
    assert Counter(item.cell.severity for item in found).most_common()[0][1] == 3
    assert {*found[0].extras} == {"persona_a", "persona_b"}
    write_set(SetFolder(tmp_path), board.ordered(), found, board.plan.settings)
    assert '"persona_b": "How do I do it? persona_b' in (tmp_path / "prompts.jsonl").read_text()


def test_places_of_one_goal_share_a_cell_and_a_goal() -> None:
    board, _, _ = made(plan_of(count=20, prompts_per_goal=4), good)
    for first in range(0, 20, 4):
        of_goal = board.in_set()[first : first + 4]
        assert len({(item.goal, item.cell) for item in of_goal}) == 1
    assert len({item.prompt for item in board.in_set()}) == 20


@pytest.mark.parametrize("says", [good, mixed])
@pytest.mark.parametrize("admitted", [8, 32])
def test_a_server_that_admits_some_questions_at_a_time_is_kept_at_least_nine_tenths_busy(
    says: Callable[[Question], Said], admitted: int
) -> None:
    board = Board(plan_of(count=1000), NoRepetition())
    generator = random.Random(1)
    busy_s = 0.0

    async def run() -> float:
        room = asyncio.Semaphore(admitted)

        class Admitting(AgentsAsker):
            async def ask(self, question: Question) -> Answers:
                nonlocal busy_s
                pause_s = generator.uniform(0.5, 4.0)
                async with room:
                    busy_s += pause_s
                    await asyncio.sleep(pause_s)
                    return await super().ask(question)

        models: dict[Agent, AgentModel] = {agent: AgentModel(Admitting(says), MODEL) for agent in AGENTS}
        await make_set(board, models, 2 * admitted, asyncio.Event())
        return asyncio.get_running_loop().time()

    passed_s = in_virtual_time(run())
    settled(board)
    assert busy_s >= 0.9 * admitted * passed_s, busy_s / (admitted * passed_s)
