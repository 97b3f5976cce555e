"""Turns, retries and deadlines, in virtual time."""

import asyncio
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynalign.configs.errors import EndpointRefused, EndpointUnreachable
from dynalign.endpoint.base import Answer, Answers
from dynalign.endpoint.outcome import FailedCall
from dynalign.endpoint.pacing import Pace, Pacer
from tests.worlds.jumping_clock import in_virtual_time

ANSWERS = Answers((Answer("yes", "stop"),), "tiny", 3, 2)
TOO_MANY = FailedCall("status 429", again="until the deadline", billed=False, slow_down=True)
AWAY = FailedCall("no connection", again="until the deadline", billed=False)
MAY_PASS = FailedCall("status 500", again="some times", billed=True)
NEVER = FailedCall("status 404", again="never", billed=False)
PACE = Pace(concurrency=4, deadline_s=100.0, request_s=20.0, retries=3)


class Server:
    """Takes a second for each request; `act` decides by the time in seconds."""

    def __init__(self, act: Callable[[float], Answers | FailedCall]) -> None:
        self.act = act
        self.times_s: list[float] = []
        self.timeouts_s: list[float] = []
        self.at_once = 0
        self.most_at_once = 0

    async def send(self, timeout_s: float) -> Answers | FailedCall:
        self.times_s.append(asyncio.get_running_loop().time())
        self.timeouts_s.append(timeout_s)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(1.0)
        self.at_once -= 1
        return self.act(asyncio.get_running_loop().time())


def pacer(pace: Pace = PACE, seed: int = 0) -> Pacer:
    loop = asyncio.get_running_loop()
    return Pacer("somewhere", pace, loop.time, asyncio.sleep, random.Random(seed).random)


def results(server: Server, questions: int, pace: Pace = PACE) -> list[Answers | BaseException]:
    async def main() -> list[Answers | BaseException]:
        paced = pacer(pace)
        asked = [paced.answers(server.send) for _ in range(questions)]
        return await asyncio.gather(*asked, return_exceptions=True)

    return in_virtual_time(main())


def scripted(*outcomes: Answers | FailedCall) -> Server:
    left = list(outcomes)
    return Server(lambda now_s: left.pop(0) if left else ANSWERS)


def test_no_more_requests_are_in_flight_than_the_setting_allows() -> None:
    server = Server(lambda now_s: ANSWERS)
    assert results(server, 20) == [ANSWERS] * 20
    assert server.most_at_once == 4
    assert max(server.times_s) == 4.0


def test_a_burst_of_429_halves_the_requests_once_and_answers_raise_them_again() -> None:
    async def main() -> list[float]:
        paced = pacer(Pace(concurrency=8, deadline_s=1e6))
        limits = []
        burst = scripted(*[TOO_MANY] * 8)
        await asyncio.gather(*[paced.answers(burst.send) for _ in range(8)])
        limits.append(paced.limit)
        for _ in range(60):
            await paced.answers(burst.send)
        return [*limits, paced.limit]

    after_the_burst, at_last = in_virtual_time(main())
    assert 4.0 <= after_the_burst < 6.0, "eight refusals at once are one reason, not eight"
    assert at_last == 8.0


def test_refusals_without_end_leave_one_request_at_a_time() -> None:
    server = Server(lambda now_s: TOO_MANY if now_s < 90 else ANSWERS)
    assert results(server, 6, Pace(concurrency=4, deadline_s=1000.0)) == [ANSWERS] * 6
    late_s = sorted(when for when in server.times_s if 60 < when < 90)
    assert all(after - before >= 1.0 for before, after in zip(late_s, late_s[1:], strict=False))


def test_retry_after_holds_all_requests_back() -> None:
    told = FailedCall("status 429", "until the deadline", billed=False, slow_down=True, retry_after_s=30.0)
    server = scripted(told)
    assert results(server, 9) == [ANSWERS] * 9
    assert not [when for when in server.times_s if 1.0 < when < 31.0]


def test_a_retry_after_beyond_the_deadline_ends_the_question_at_once() -> None:
    told = FailedCall("status 429", "until the deadline", billed=False, slow_down=True, retry_after_s=3600.0)
    server = Server(lambda now_s: told)
    (error,) = results(server, 1)
    assert isinstance(error, EndpointUnreachable)
    assert server.times_s == [0.0]


def test_what_will_not_pass_is_asked_once() -> None:
    server = scripted(NEVER)
    (error,) = results(server, 1)
    assert isinstance(error, EndpointRefused)
    assert str(error) == "somewhere: status 404"
    assert len(server.times_s) == 1


def test_what_may_pass_is_tried_a_bounded_number_of_times_with_growing_pauses() -> None:
    server = Server(lambda now_s: MAY_PASS)
    (error,) = results(server, 1)
    assert isinstance(error, EndpointUnreachable)
    assert str(error) == "somewhere: status 500, 4 times"
    pauses_s = [
        after - before - 1.0 for before, after in zip(server.times_s, server.times_s[1:], strict=False)
    ]
    assert [0.25 <= pauses_s[0] <= 0.5, 0.5 <= pauses_s[1] <= 1.0, 1.0 <= pauses_s[2] <= 2.0] == [True] * 3


def test_a_server_that_dies_is_waited_for_and_nothing_is_lost() -> None:
    server = Server(lambda now_s: AWAY if 5 <= now_s <= 70 else ANSWERS)
    assert results(server, 40) == [ANSWERS] * 40


def test_a_dead_server_ends_all_questions_after_one_deadline_not_one_by_one() -> None:
    async def main() -> tuple[list[Answers | BaseException], float]:
        paced = pacer()
        server = Server(lambda now_s: AWAY)
        asked = [paced.answers(server.send) for _ in range(500)]
        ended = await asyncio.gather(*asked, return_exceptions=True)
        return ended, asyncio.get_running_loop().time()

    ended, now_s = in_virtual_time(main())
    assert {type(error) for error in ended} == {EndpointUnreachable}
    assert "the deadline of 100 s" in str(ended[-1])
    assert now_s <= 150.0


def test_the_last_request_may_take_what_is_left_until_the_deadline() -> None:
    server = Server(lambda now_s: AWAY)
    results(server, 1, Pace(concurrency=1, deadline_s=30.0, request_s=20.0))
    assert server.timeouts_s[0] == 20.0
    assert all(
        timeout_s <= 30.0 - sent_s
        for sent_s, timeout_s in zip(server.times_s, server.timeouts_s, strict=True)
    )


@given(st.integers(0, 1000), st.floats(0.0, 0.5))
def test_no_question_is_lost_while_up_to_half_of_the_requests_fail(seed: int, share: float) -> None:
    chance = random.Random(seed)

    def act(now_s: float) -> Answers | FailedCall:
        return chance.choice([TOO_MANY, AWAY, MAY_PASS]) if chance.random() < share else ANSWERS

    server = Server(act)
    assert results(server, 60, Pace(concurrency=8, deadline_s=3600.0, retries=30)) == [ANSWERS] * 60


@pytest.mark.parametrize("cancel_at_s", [0.5, 1.5, 2.5])
def test_a_cancelled_question_gives_its_turn_back(cancel_at_s: float) -> None:
    async def main() -> list[Answers | BaseException]:
        paced = pacer(Pace(concurrency=1))
        server = Server(lambda now_s: ANSWERS)
        tasks = [asyncio.create_task(paced.answers(server.send)) for _ in range(5)]
        await asyncio.sleep(cancel_at_s)
        tasks[1].cancel()
        tasks[2].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    ended = in_virtual_time(main())
    assert [ended[0], ended[3], ended[4]] == [ANSWERS] * 3
