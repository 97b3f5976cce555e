"""Rules between settings of the judge: one for each combination that contradicts itself."""

import re

from dynalign.configs.errors import Mistake
from dynalign.configs.rule_table import RuleTable
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.judge import FROZEN, SELF, stance_parts

RULES = RuleTable()

NAME_FORM = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""Of an endpoint or pool."""
_STANCE = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,63}}(:{NAME_FORM})?")
_ONE_DIGIT = 9
"""The highest grade that is one digit, hence one token."""


@RULES.reading("judge.kind", "judge.function")
def function_judge_needs_function(settings: RunSettings) -> Mistake | None:
    if settings.judge.kind != "function" or settings.judge.function is not None:
        return None
    return Mistake(
        "judge.function",
        None,
        "judge.kind=function needs a function",
        "set judge.function=package.module:callable",
    )


@RULES.reading("judge.kind", "judge.function")
def function_needs_function_judge(settings: RunSettings) -> Mistake | None:
    if settings.judge.kind == "function" or settings.judge.function is None:
        return None
    why = f"judge.kind={settings.judge.kind} never calls it"
    return Mistake(
        "judge.function", settings.judge.function, why, "set judge.kind=function, or judge.function=null"
    )


@RULES.reading("judge.function")
def function_is_module_colon_callable(settings: RunSettings) -> Mistake | None:
    name = settings.judge.function
    if name is None or len(name) <= 255 and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
        return None
    return Mistake(
        "judge.function",
        name,
        "is not of the form package.module:callable",
        "write a dotted module, a colon, a name",
    )


@RULES.reading("judge.samples", "judge.scorer")
def more_samples_need_sampled_scorer(settings: RunSettings) -> Mistake | None:
    if settings.judge.samples == 1 or settings.judge.scorer == "sampled":
        return None
    why = "judge.scorer=expected gives the same verdict each time, so there is nothing to average"
    return Mistake(
        "judge.samples", settings.judge.samples, why, "set judge.samples=1, or judge.scorer=sampled"
    )


@RULES.reading("judge.aggregate", "judge.rubric")
def aggregate_needs_factorized_rubric(settings: RunSettings) -> Mistake | None:
    if settings.judge.aggregate == "mean" or settings.judge.rubric == "factorized":
        return None
    why = "judge.rubric=unified gives one score, so there is nothing to aggregate"
    return Mistake(
        "judge.aggregate",
        settings.judge.aggregate,
        why,
        "set judge.aggregate=mean, or judge.rubric=factorized",
    )


@RULES.reading("judge.kind", "judge.models")
def external_judge_needs_models(settings: RunSettings) -> Mistake | None:
    if settings.judge.kind != "external" or settings.judge.models:
        return None
    why = "judge.kind=external asks other models"
    return Mistake("judge.models", None, why, "set judge.models=[<endpoint or pool>]")


@RULES.reading("judge.kind", "judge.models")
def models_need_a_judge_that_asks_them(settings: RunSettings) -> Mistake | None:
    judge = settings.judge
    if not judge.models or judge.kind in ("external", "ranked"):
        return None
    why = f"judge.kind={judge.kind} never asks them"
    remedy = "set judge.models=[], or name them in judge.veto or judge.probes, or set judge.kind=external"
    return Mistake("judge.models", list(judge.models), why, remedy)


@RULES.reading("judge.kind", "judge.models")
def ranked_judge_asks_one_model(settings: RunSettings) -> Mistake | None:
    judge = settings.judge
    if judge.kind != "ranked" or len(judge.models) <= 1:
        return None
    why = "a ranking is made by one model"
    return Mistake("judge.models", list(judge.models), why, "name one, or none to ask the policy")


@RULES.reading("judge.models", "judge.veto", "judge.probes")
def asked_names_are_names_and_distinct(settings: RunSettings) -> Mistake | None:
    judge = settings.judge
    for place, names in (("models", judge.models), ("veto", judge.veto), ("probes", judge.probes)):
        if len(set(names)) < len(names) or not all(re.fullmatch(NAME_FORM, name) for name in names):
            why = "holds a name twice, or one that is not of letters, digits, '.', '_' and '-'"
            return Mistake(f"judge.{place}", list(names), why, "write each name once")
    return None


@RULES.reading("judge.models")
def policy_is_no_other_model(settings: RunSettings) -> Mistake | None:
    if SELF not in settings.judge.models:
        return None
    why = f"{SELF} is the policy, which is no other model"
    return Mistake("judge.models", list(settings.judge.models), why, f"take it out, or set judge.kind={SELF}")


@RULES.reading("judge.kind", "judge.stances")
def panel_needs_two_stances(settings: RunSettings) -> Mistake | None:
    judge = settings.judge
    if judge.kind != "panel" or len(judge.stances) > 1:
        return None
    why = "a panel has at least two stances"
    return Mistake("judge.stances", list(judge.stances), why, "set judge.stances=[asker, affected, harm]")


@RULES.reading("judge.kind", "judge.stances")
def stances_need_a_panel(settings: RunSettings) -> Mistake | None:
    judge = settings.judge
    if judge.kind == "panel" or not judge.stances:
        return None
    why = f"judge.kind={judge.kind} has no stances"
    return Mistake("judge.stances", list(judge.stances), why, "set judge.kind=panel, or judge.stances=[]")


@RULES.reading("judge.stances")
def stances_are_distinct_names(settings: RunSettings) -> Mistake | None:
    stances = settings.judge.stances
    names = {stance_parts(stance)[0] for stance in stances}
    if len(names) == len(stances) and all(map(_STANCE.fullmatch, stances)):
        return None
    why = "holds a stance twice, or one that is not of the form <name> or <name>:<whom it asks>"
    return Mistake("judge.stances", list(stances), why, "write each stance once, like harm or harm:frozen")


@RULES.reading("judge.kind", "judge.stances")
def panel_asks_the_policy_in_all_stances_or_in_none(settings: RunSettings) -> Mistake | None:
    judge = settings.judge
    if judge.kind != "panel" or SELF not in judge.scorers or len(judge.scorers) == 1:
        return None
    why = "the policy would change while it waits for another model's reasons"
    remedy = f"let every stance ask {SELF}, or none: {FROZEN} is the initial policy"
    return Mistake("judge.stances", list(judge.stances), why, remedy)


@RULES.reading("judge.kind", "judge.scorer")
def panel_needs_sampled_scorer(settings: RunSettings) -> Mistake | None:
    if settings.judge.kind != "panel" or settings.judge.scorer == "sampled":
        return None
    why = "a stance gives a reason with its score, and judge.scorer=expected gives a number alone"
    return Mistake("judge.scorer", settings.judge.scorer, why, "set judge.scorer=sampled")


@RULES.reading("judge.kind", "judge.samples")
def panel_takes_one_sample(settings: RunSettings) -> Mistake | None:
    if settings.judge.kind != "panel" or settings.judge.samples == 1:
        return None
    why = "a stance has one reason and one score in each round"
    return Mistake("judge.samples", settings.judge.samples, why, "set judge.samples=1, or add stances")


@RULES.reading("judge.kind", "judge.rubric")
def panel_and_ranking_use_one_rubric(settings: RunSettings) -> Mistake | None:
    judge = settings.judge
    if judge.kind not in ("panel", "ranked") or judge.rubric == "unified":
        return None
    why = f"judge.kind={judge.kind} judges the whole value at once"
    remedy = "set judge.rubric=unified, and judge.probe_factorized=true to see the aspects"
    return Mistake("judge.rubric", judge.rubric, why, remedy)


@RULES.reading("judge.kind", "judge.settle", "judge.models", "judge.stances", "judge.veto")
def trimmed_mean_needs_three_scores(settings: RunSettings) -> Mistake | None:
    judge = settings.judge
    if judge.settle == "mean":
        return None
    stances = [stance for stance in judge.stances if stance_parts(stance)[0] not in judge.veto]
    settled = {"external": len(judge.models), "panel": len(stances)}.get(judge.kind, 1)
    if settled >= 3:
        return None
    why = f"leaves out the highest and the lowest score, and {settled} are settled"
    return Mistake("judge.settle", judge.settle, why, "set judge.settle=mean, or name three or more")


@RULES.reading("judge.kind", "judge.stances", "judge.veto")
def panel_veto_is_a_stance_among_others(settings: RunSettings) -> Mistake | None:
    judge = settings.judge
    names = {stance_parts(stance)[0] for stance in judge.stances}
    if judge.kind != "panel" or not judge.veto or set(judge.veto) < names:
        return None
    why = f"a panel's vetoes are some of its stances ({', '.join(sorted(names))}), and not all of them"
    return Mistake("judge.veto", list(judge.veto), why, "name stances, and leave one that gives the score")


@RULES.reading("judge.kind", "judge.models", "judge.veto")
def veto_is_somebody_else(settings: RunSettings) -> Mistake | None:
    judge = settings.judge
    both = [name for name in judge.veto if name in judge.scorers] if judge.kind != "panel" else []
    if not both:
        return None
    why = f"{both[0]} gives the score itself"
    return Mistake("judge.veto", list(judge.veto), why, f"name somebody else, such as {FROZEN}")


@RULES.reading("judge.kind", "judge.veto")
def ranking_has_no_veto(settings: RunSettings) -> Mistake | None:
    if settings.judge.kind != "ranked" or not settings.judge.veto:
        return None
    why = "a ranking compares within the group, and a veto caps a score that stands by itself"
    return Mistake("judge.veto", list(settings.judge.veto), why, "set judge.veto=[], or another judge.kind")


@RULES.reading("judge.kind", "judge.models", "judge.stances", "judge.veto", "judge.probes")
def probe_is_somebody_else(settings: RunSettings) -> Mistake | None:
    judge = settings.judge
    pointwise = judge.kind not in ("panel", "ranked")
    both = [name for name in judge.probes if name in judge.veto or (pointwise and name in judge.scorers)]
    if not both:
        return None
    why = f"{both[0]} scores every group already"
    return Mistake("judge.probes", list(judge.probes), why, "name somebody else")


@RULES.reading("judge.kind", "judge.consistency_weight")
def consistency_is_that_of_the_live_policy(settings: RunSettings) -> Mistake | None:
    judge = settings.judge
    if not judge.consistency_weight or judge.kind == SELF:
        return None
    why = f"compares the live policy's scores with those before training, and judge.kind={judge.kind}"
    return Mistake(
        "judge.consistency_weight", True, why, "set judge.consistency_weight=false, or judge.kind=self"
    )


@RULES.reading("judge.kind", "judge.consistency_weight", "judge.veto", "judge.probes", "judge.probe_fraction")
def consistency_needs_the_initial_policy_on_every_group(settings: RunSettings) -> Mistake | None:
    judge = settings.judge
    probed = FROZEN in judge.probes and judge.probe_fraction == 1
    if not judge.consistency_weight or judge.kind != SELF or probed or FROZEN in judge.veto:
        return None
    why = f"needs the scores of {FROZEN} for every group"
    remedy = f"set judge.probes=[{FROZEN}] judge.probe_fraction=1, or judge.consistency_weight=false"
    return Mistake("judge.consistency_weight", True, why, remedy)


@RULES.reading("judge.kind", "judge.rubric", "judge.probe_factorized")
def factorized_probe_needs_unified_rubric(settings: RunSettings) -> Mistake | None:
    judge = settings.judge
    if not judge.probe_factorized or (judge.rubric == "unified" and judge.kind != "function"):
        return None
    why = "judge.rubric=factorized keeps every aspect's score of every group"
    if judge.kind == "function":
        why = "judge.kind=function asks nobody who could read a rubric"
    return Mistake("judge.probe_factorized", True, why, "set judge.probe_factorized=false")


@RULES.reading("judge.lowest_grade", "judge.highest_grade")
def grades_ascend(settings: RunSettings) -> Mistake | None:
    judge = settings.judge
    if judge.lowest_grade < judge.highest_grade:
        return None
    why = f"is not below judge.highest_grade={judge.highest_grade}"
    return Mistake("judge.lowest_grade", judge.lowest_grade, why, "set it lower, or the highest grade higher")


@RULES.reading("judge.highest_grade", "judge.scorer")
def expected_grades_are_one_digit(settings: RunSettings) -> Mistake | None:
    judge = settings.judge
    if judge.scorer == "sampled" or judge.highest_grade <= _ONE_DIGIT:
        return None
    why = "judge.scorer=expected reads one token, which is one digit"
    return Mistake(
        "judge.highest_grade", judge.highest_grade, why, "set it to 9 or less, or judge.scorer=sampled"
    )


@RULES.reading("judge.lowest_grade", "judge.highest_grade", "judge.values")
def other_grades_need_texts_of_their_own(settings: RunSettings) -> Mistake | None:
    judge = settings.judge
    if judge.values is not None or (judge.lowest_grade, judge.highest_grade) == (0, 5):
        return None
    why = "the texts that come with dynalign ask for a grade from 0 to 5"
    remedy = "set judge.values to a folder whose texts use this scale, or take it out"
    if judge.highest_grade != 5:
        return Mistake("judge.highest_grade", judge.highest_grade, why, remedy)
    return Mistake("judge.lowest_grade", judge.lowest_grade, why, remedy)
