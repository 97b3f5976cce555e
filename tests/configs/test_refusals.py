"""The bounds of every number in the settings: a value outside is refused with value, rule and remedy."""

import math

import pytest
from annotated_types import Ge, Gt, Le, Lt

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.load import load_run
from dynalign.configs.refusals import FIELDS, Bound, bounds

NUMBERS = [path for path, field in FIELDS.items() if bounds(field)]
LIMITS = [(path, limit) for path in NUMBERS for limit in bounds(FIELDS[path])]
FAR = 10**10


def is_lower(limit: Bound) -> bool:
    return isinstance(limit, Ge | Gt)


def edge(limit: Bound) -> float:
    """The number that a limit names."""
    match limit:
        case Ge(ge=number) | Gt(gt=number) | Le(le=number) | Lt(lt=number):
            assert isinstance(number, int | float)
            return number


def outside(limit: Bound) -> list[float]:
    """The nearest value that the limit forbids, and one far away."""
    number = edge(limit)
    towards = -1 if is_lower(limit) else 1
    if isinstance(limit, Gt | Lt):
        nearest = number
    elif isinstance(number, int):
        nearest = number + towards
    else:
        nearest = math.nextafter(number, towards * math.inf)
    return [nearest, towards * FAR]


def mistakes(override: str) -> list[Mistake]:
    try:
        load_run("quickstart", [override])
    except UserError as refused:
        return list(refused.mistakes)
    return []


def refused_by_schema(path: str, value: object) -> list[Mistake]:
    """What is said about this setting itself; a value may also break rules that involve others."""
    return [each for each in mistakes(f"{path}={value}") if each.rule.startswith("must ")]


def test_every_number_of_the_settings_has_a_lower_bound() -> None:
    unbounded = [
        path
        for path, field in FIELDS.items()
        if field.annotation in (int, float, int | None, float | None) and not bounds(field)
    ]
    assert unbounded == []
    assert len(NUMBERS) > 50
    assert [path for path in NUMBERS if not is_lower(bounds(FIELDS[path])[0])] == []


@pytest.mark.parametrize(("path", "limit"), LIMITS, ids=str)
def test_a_value_outside_is_refused_with_value_rule_and_remedy(path: str, limit: Bound) -> None:
    number = f"{edge(limit):,}"
    for value in outside(limit):
        (mistake,) = refused_by_schema(path, value)
        assert mistake.place == f"{path} (command line)"
        assert mistake.value == value
        assert number in mistake.rule
        assert mistake.remedy.startswith("set it to ")
        assert number in mistake.remedy


@pytest.mark.parametrize(
    ("path", "limit"), [each for each in LIMITS if isinstance(each[1], Ge | Le)], ids=str
)
def test_a_value_on_the_edge_is_accepted(path: str, limit: Bound) -> None:
    assert refused_by_schema(path, edge(limit)) == []


@pytest.mark.parametrize("path", NUMBERS)
def test_a_word_in_place_of_a_number_is_refused_with_the_bounds(path: str) -> None:
    (mistake,) = refused_by_schema(path, "many")
    assert (mistake.value, mistake.rule.split(" a ")[0]) == ("many", "must be")
    assert all(f"{edge(limit):,}" in mistake.remedy for limit in bounds(FIELDS[path]))


@pytest.mark.parametrize("number", [0, 901])
def test_one_number_for_both_limits_of_the_workers_is_one_mistake(number: int) -> None:
    (mistake,) = mistakes(f"rollout.workers={number}")
    assert mistake.place == "rollout.workers.min (command line)"
    assert (mistake.value, mistake.remedy) == (number, "set it to 1 … 900")
