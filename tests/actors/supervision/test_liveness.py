"""Signs of life: asked for again and again, one call at a time, less often of each where many are asked."""

from types import SimpleNamespace
from typing import Any

import pytest

from dynalign.actors.supervision import liveness as pulse
from dynalign.actors.supervision.liveness import EVERY_S, QUESTIONS_PER_S, Liveness, every_s


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Calls by their numbers; those in it have an answer, which is the number."""
    there: list[int] = []

    def wait(calls: list[int], timeout: float) -> tuple[list[int], list[int]]:
        assert timeout == 0
        return [call for call in calls if call in there], [call for call in calls if call not in there]

    fake: Any = SimpleNamespace(wait=wait, get=lambda call: call)
    monkeypatch.setattr(pulse, "ray", fake)
    return there


class Asked:
    def __init__(self) -> None:
        self.now_s, self.calls = 0.0, 0
        self.pulse = Liveness(self.ask, lambda: self.now_s)

    def ask(self) -> int:
        self.calls += 1
        return self.calls

    def at(self, now_s: float, every_s: float = EVERY_S) -> tuple[int, object, float]:
        self.now_s = now_s
        answer = self.pulse.look(every_s)
        return self.calls, answer, self.pulse.silent_s


def test_one_call_at_a_time_and_silence_counts_from_the_question(answered: list[int]) -> None:
    asked = Asked()
    assert asked.at(0.0) == (1, None, 0.0)
    assert asked.at(7.0) == (1, None, 7.0)
    answered.append(1)
    assert asked.at(8.0) == (2, 1, 0.0), "the answer is there, and the next question is overdue"
    answered.append(2)
    assert asked.at(8.5) == (2, 2, 0.0)
    assert asked.at(9.0) == (3, 2, 0.0)


def test_of_many_each_is_asked_less_often(answered: list[int]) -> None:
    asked = Asked()
    answered.extend(range(100))
    asked.at(0.0)
    asked.at(0.1)  # the first answer is fetched as soon as it is there
    calls = [asked.at(0.2 + tick / 10, every_s(1000))[0] for tick in range(200)]
    assert calls[-1] - calls[0] == 2, "every ten seconds"


@pytest.mark.parametrize(("actors", "wanted_s"), [(1, 1.0), (100, 1.0), (1000, 10.0)])
def test_no_more_than_so_many_questions_a_second(actors: int, wanted_s: float) -> None:
    assert every_s(actors) == wanted_s
    assert actors / every_s(actors) <= QUESTIONS_PER_S
