"""Rules of the endpoints of a run: their names, and whether anybody asks them."""

import re

from dynalign.configs.errors import Mistake
from dynalign.configs.judge_rules import NAME_FORM
from dynalign.configs.rule_table import RuleTable
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.judge import FROZEN, POOL, SELF

RULES = RuleTable()

_TAKEN = {SELF: "the live policy", FROZEN: "the initial policy", POOL: "the model of judge.pool"}
"""Names that judges ask, and whom each means."""


@RULES.reading("judge.endpoints")
def endpoint_names_are_names_of_their_own(settings: RunSettings) -> Mistake | None:
    for name in settings.judge.endpoints:
        place = f"judge.endpoints.{name}"
        if name in _TAKEN:
            return Mistake(place, None, f"has the name of {_TAKEN[name]}", "give it another name")
        if not re.fullmatch(NAME_FORM, name):
            why = "has a name that is not of letters, digits, '.', '_' and '-', at most 64"
            return Mistake(place, None, why, "give it another name")
    return None


@RULES.reading(
    "judge.endpoints",
    "judge.kind",
    "judge.models",
    "judge.stances",
    "judge.veto",
    "judge.probes",
)
def endpoints_are_asked(settings: RunSettings) -> Mistake | None:
    judge = settings.judge
    unused = [name for name in judge.endpoints if name not in judge.asked and name not in _TAKEN]
    if not unused:
        return None
    where = "judge.stances" if judge.kind == "panel" else "judge.models"
    remedy = f"name it in {where}, judge.veto or judge.probes, or take it out"
    return Mistake(f"judge.endpoints.{unused[0]}", None, "is asked by no judge", remedy)


@RULES.reading("judge.endpoints", "deadlines.start_s", "deadlines.group_s")
def endpoint_answers_before_its_group_is_late(settings: RunSettings) -> Mistake | None:
    deadlines = settings.deadlines
    for name, endpoint in settings.judge.endpoints.items():
        if endpoint.deadline_s + deadlines.start_s >= deadlines.group_s:
            why = (
                f"with deadlines.start_s={deadlines.start_s:g} for a new gateway, an answer may take longer "
                f"than deadlines.group_s={deadlines.group_s:g}, after which the worker that asks counts as "
                "hanging"
            )
            remedy = "set it or deadlines.start_s lower, or deadlines.group_s higher"
            return Mistake(f"judge.endpoints.{name}.deadline_s", endpoint.deadline_s, why, remedy)
    return None
