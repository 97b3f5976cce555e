"""The learning rate, step by step."""

from typing import Literal

import pytest

from dynalign.learner.schedule import learning_rate

KINDS: tuple[Literal["constant", "linear", "cosine"], ...] = ("constant", "linear", "cosine")


def rates(steps: int, warmup_steps: int, kind: Literal["constant", "linear", "cosine"]) -> list[float]:
    return [learning_rate(step, steps, 1.0, warmup_steps, kind) for step in range(1, steps + 1)]


def test_constant_is_constant() -> None:
    assert rates(3, 0, "constant") == [1.0, 1.0, 1.0]


def test_linear_falls_in_equal_parts_and_would_reach_zero_one_step_after_the_last() -> None:
    assert rates(4, 0, "linear") == [1.0, 0.75, 0.5, 0.25]


def test_cosine_is_half_way_down_in_the_middle() -> None:
    # (1 + cos 0°, 45°, 90°, 135°) / 2
    assert rates(4, 0, "cosine") == pytest.approx([1.0, 0.8535534, 0.5, 0.1464466])


@pytest.mark.parametrize("kind", KINDS)
def test_warmup_rises_in_equal_parts_and_hands_over_at_the_base_rate(
    kind: Literal["constant", "linear", "cosine"],
) -> None:
    assert rates(6, 2, kind)[:3] == [0.5, 1.0, 1.0]


def test_the_rest_of_the_schedule_is_the_schedule_of_the_rest() -> None:
    assert rates(6, 2, "linear")[2:] == rates(4, 0, "linear")
    assert rates(6, 2, "cosine")[2:] == rates(4, 0, "cosine")


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_has_a_positive_rate_not_above_the_base(
    kind: Literal["constant", "linear", "cosine"],
) -> None:
    for steps in (1, 2, 7):
        for warmup_steps in (0, 1, 7, 9):
            assert all(0 < rate <= 1.0 for rate in rates(steps, warmup_steps, kind))


def test_the_rate_is_proportional_to_the_base() -> None:
    assert learning_rate(3, 10, 2e-6, 0, "linear") == pytest.approx(2e-6 * 0.8)


@pytest.mark.parametrize("step", [0, 11, -1])
def test_a_step_outside_the_run_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match="not one of 1 to 10"):
        learning_rate(step, 10, 1.0, 0, "constant")
