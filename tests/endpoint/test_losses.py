"""Nothing is lost and nothing is paid twice or beyond the budget, whatever fails and whoever is killed."""

import asyncio
import json
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dynalign.endpoint.ask import Endpoint
from dynalign.endpoint.base import Answer, Answers, Question
from dynalign.endpoint.outcome import FailedCall, most_completion_tokens, most_prompt_tokens
from dynalign.endpoint.store import AnswerFile
from tests.worlds.asked_endpoint import asked_endpoint, hasty, question, settings
from tests.worlds.product import ROOT
from tests.worlds.scripted_endpoint import Act, Exchange, ScriptedEndpoint, answering, scripted_endpoint

KILLS = 3
"""Of the client process; 20 take a minute."""
QUESTIONS = 120
RUNS = 100
"""With a budget, and with a server that fails at random."""


def failing(share: float, seed: int) -> Act:
    """A server that fails at random, in every way that may pass."""
    chance = random.Random(seed)
    ways: list[Act] = [
        lambda exchange: exchange.error(429, "slow", Retry_After="0.01"),
        lambda exchange: exchange.error(429, "slow"),
        lambda exchange: exchange.error(500, "oh"),
        lambda exchange: exchange.error(503, "loading"),
        lambda exchange: exchange.respond(200, "<html>"),
        lambda exchange: exchange.answer(choices=[]),
        lambda exchange: exchange.die(0),
        lambda exchange: exchange.die(50),
    ]

    def act(exchange: Exchange) -> None:
        (chance.choice(ways) if chance.random() < share else answering)(exchange)

    return act


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5])
def test_no_question_is_lost_while_requests_fail_at_random(tmp_path: Path, share: float) -> None:
    async def main(address: str) -> list[Answers]:
        async with asked_endpoint(address, tmp_path / "answers", retries=40) as endpoint:
            asker = endpoint.asker("judge")
            return await asyncio.gather(*[asker.ask(question(each)) for each in range(60)])

    with scripted_endpoint(act=failing(share, seed=5)) as server:
        answers = asyncio.run(main(server.address))
    assert len({each.answers_N[0].text for each in answers}) == 60


class RandomBiller:
    """Bills anything up to the bound, and loses some of the answers that it bills."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.billed_tokens = 0

    async def send(self, asked: Question, timeout_s: float) -> Answers | FailedCall:
        await asyncio.sleep(0)
        ending = self.chance.random()
        if ending < 0.15:
            return FailedCall("status 429", again="until the deadline", billed=False, slow_down=True)
        read = self.chance.randint(1, most_prompt_tokens(asked))
        written = self.chance.randint(1, most_completion_tokens(asked))
        self.billed_tokens += read + written
        if ending < 0.3:
            return FailedCall("no answer within 1 s", again="some times", billed=True)
        return Answers((Answer("yes", "stop"),) * self.chance.randint(1, asked.n), "tiny", read, written)


async def billed_and_budget(file: Path, seed: int) -> tuple[int, int]:
    """Tokens billed to two workers that share a wall, and the wall."""
    chance = random.Random(seed)
    budget = chance.randint(200, 20_000)
    server = RandomBiller(chance)
    wanted = settings("http://somewhere/v1", budget_tokens=budget, concurrency=chance.randint(1, 16))
    files = [AnswerFile(file), AnswerFile(file)]
    workers = [Endpoint(wanted, each, server, pacer=hasty("http://somewhere/v1")) for each in files]
    asked = [
        worker.asker("judge").ask(question(each, n=chance.randint(1, 4), max_tokens=chance.randint(1, 200)))
        for worker in workers
        for each in range(20)
    ]
    await asyncio.gather(*asked, return_exceptions=True)
    for each in files:
        await each.close()
    return server.billed_tokens, budget


def test_the_bill_never_exceeds_the_budget(tmp_path: Path) -> None:
    figures = [asyncio.run(billed_and_budget(tmp_path / f"{seed}", seed)) for seed in range(RUNS)]
    assert [billed <= budget for billed, budget in figures] == [True] * RUNS
    assert sum(billed for billed, _ in figures) > 0.5 * sum(budget for _, budget in figures), (
        "the wall is reached by spending, not by refusing"
    )


def in_flight(file: Path) -> int:
    """Requests without a bill."""
    db = sqlite3.connect(file, timeout=30)
    count: int = db.execute("SELECT count(*) FROM requests WHERE state = 'in flight'").fetchone()[0]
    db.close()
    return count


def client(server: ScriptedEndpoint, file: Path) -> "subprocess.Popen[bytes]":
    module = "tests.worlds.asked_endpoint"
    arguments = [sys.executable, "-m", module, server.address, str(file), str(QUESTIONS)]
    return subprocess.Popen(arguments, cwd=ROOT)


def killed_after(process: "subprocess.Popen[bytes]", server: ScriptedEndpoint, requests: int) -> bool:
    """Kills a client once the server has had `requests` requests; whether it was still running."""
    until_s = time.monotonic() + 100
    while len(server.asked) < requests and process.poll() is None:
        assert time.monotonic() < until_s, "the client asks nothing"
        time.sleep(0.001)
    process.kill()
    return process.wait(30) != 0


def slowly(exchange: Exchange) -> None:
    """Between bill and answer there is time to be killed."""
    response = exchange.server.billed_response(exchange.body)
    time.sleep(0.02)
    exchange.respond(200, json.dumps(response))


def test_a_client_that_is_killed_pays_again_only_for_what_was_in_flight(tmp_path: Path) -> None:
    chance = random.Random(11)
    file = tmp_path / "answers"
    with scripted_endpoint(act=slowly) as server:
        kills = 0
        for _ in range(KILLS):
            kills += killed_after(
                client(server, file), server, len(server.asked) + chance.randint(1, QUESTIONS // KILLS)
            )
        lost = in_flight(file)
        assert client(server, file).wait(100) == 0
        assert client(server, file).wait(100) == 0, "asked again, everything is read"
        assert kills == KILLS
        assert 0 < lost <= 8 * KILLS
        assert in_flight(file) == lost
        assert QUESTIONS <= len(server.billed) <= QUESTIONS + lost
        assert len({body["messages"][0]["content"] for body in server.billed}) == QUESTIONS
        db = sqlite3.connect(file)
        spent, kept = db.execute("SELECT tokens, (SELECT count(*) FROM answers) FROM spent").fetchone()
        assert kept == QUESTIONS
        assert spent >= server.billed_tokens, "what was in flight counts as spent"
