"""Signs of life: one question at a time, again and again, and less often of each where many are asked."""

from collections.abc import Sequence
from typing import Any

import pytest

from dynalign.actors.supervision.liveness import EVERY_S, QUESTIONS_PER_S, Liveness, every_s


class Asked:
    """An actor whose calls are numbers; `answered` holds those that have an answer, which is the number."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.calls = 0
        self.answered: list[int] = []
        self.liveness: Liveness[Any] = Liveness(self.ask, self, lambda: self.now_s)

    def ask(self) -> Any:
        self.calls += 1
        return self.calls

    def wait(self, calls: Sequence[Any], timeout_s: float) -> None:
        raise AssertionError("signs of life wait for nothing")

    def ended(self, call: Any) -> bool:
        return call in self.answered

    def answer(self, call: Any) -> Any:
        return call

    def kill(self, actor: object) -> None:
        raise AssertionError("signs of life end nobody")

    def at(self, now_s: float, every_s: float = EVERY_S) -> tuple[int, object, float]:
        self.now_s = now_s
        answer = self.liveness.look(every_s)
        return self.calls, answer, self.liveness.silent_s


def test_one_call_at_a_time_and_silence_counts_from_the_question() -> None:
    asked = Asked()
    assert asked.at(0.0) == (1, None, 0.0)
    assert asked.at(7.0) == (1, None, 7.0)
    asked.answered.append(1)
    assert asked.at(8.0) == (2, 1, 0.0), "the answer is there, and the next question is overdue"
    asked.answered.append(2)
    assert asked.at(8.5) == (2, 2, 0.0)
    assert asked.at(9.0) == (3, 2, 0.0)


def test_of_many_each_is_asked_less_often() -> None:
    asked = Asked()
    asked.answered.extend(range(100))
    asked.at(0.0)
    asked.at(0.1)  # the first answer is fetched as soon as it is there
    calls = [asked.at(0.2 + tick / 10, every_s(1000))[0] for tick in range(200)]
    assert calls[-1] - calls[0] == 2, "every ten seconds"


@pytest.mark.parametrize(("actors", "wanted_s"), [(1, 1.0), (100, 1.0), (1000, 10.0)])
def test_no_more_than_so_many_questions_a_second(actors: int, wanted_s: float) -> None:
    assert every_s(actors) == wanted_s
    assert actors / every_s(actors) <= QUESTIONS_PER_S
