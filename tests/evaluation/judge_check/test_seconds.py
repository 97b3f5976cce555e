"""A judge under its vetoes and beside its probes, from the scores of its members."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest

from dynalign.evaluation.judge_check.asking import ask_members
from dynalign.evaluation.judge_check.seconds import (
    MemberAnswers,
    SecondFigures,
    combined,
    second_figures,
)
from dynalign.evaluation.judge_check.sheet import AskedGroup, GivenScores, JudgeAnswers
from dynalign.rollout.judges.make import SecondJudges
from dynalign.rollout.judges.second_opinions import with_vetoes
from dynalign.rollout.records import Verdict
from dynalign.run_folder.run_status import JudgeCost
from tests.worlds.scripted_judges import CONSTANT, UNREADABLE, ScriptedJudge


def group(place: int, texts_G: Sequence[str]) -> AskedGroup:
    names = tuple(str(number) for number in range(len(texts_G)))
    return AskedGroup(f"p{place}", "Why?", "candidates", names, tuple(texts_G))


def answers(name: str, scores: Sequence[Sequence[float | None]], again: bool = True) -> JudgeAnswers:
    given = [GivenScores(tuple(each), tuple(each) if again else ()) for each in scores]
    return JudgeAnswers(name, tuple(given), 1.0)


GROUPS = (group(0, ("a", "b", "c", " ")), group(1, ("d", "e")))
OWN = answers("self", [(4.0, 2.0, None, 0.0), (3.0, 5.0)])
VETO = answers("frozen", [(3.0, 2.5, 1.0, None), (None, 4.0)])
PROBE = answers("gpt", [(1.0, 2.0, 3.0, 0.0), (1.0, 4.0)])


def figures(own: JudgeAnswers, *vetoes: JudgeAnswers, probes: tuple[JudgeAnswers, ...] = ()) -> SecondFigures:
    found = second_figures(GROUPS, MemberAnswers("judge", own, vetoes, probes, 0.0625))
    assert found is not None
    return found


def test_a_veto_lowers_and_never_raises_and_without_a_score_takes_the_candidate_s_away() -> None:
    whole = combined(GROUPS, MemberAnswers("judge", OWN, (VETO,), (), 0.0))
    assert [given.scores_G for given in whole.given] == [(3.0, 2.0, None, 0.0), (None, 4.0)]
    assert [given.again_G for given in whole.given] == [(3.0, 2.0, None, 0.0), (None, 4.0)]
    assert (whole.judge, whole.seconds) == ("judge", 2.0)
    without = combined(GROUPS, MemberAnswers("judge", OWN, (), (), 0.0))
    assert without.given == OWN.given


def test_the_combined_score_is_the_one_that_a_run_makes_of_the_same_verdicts() -> None:
    rng = random.Random(3)

    def verdict() -> Verdict:
        score = rng.choice((None, 0.0, 1.5, 3.0, 5.0))
        status = rng.choice(("unparsed", "unreachable")) if score is None else "parsed"
        return Verdict(score, status, score_again=rng.choice((None, 2.0, 4.0)))

    for _ in range(300):
        own = verdict()
        vetoes = {name: verdict() for name in ("frozen", "gpt")}
        run = with_vetoes("self", own, vetoes) if own.status == "parsed" else own
        asked_group = (group(0, ("text",)),)
        first = JudgeAnswers("self", (GivenScores((own.score,), (own.score_again,)),))
        others = tuple(JudgeAnswers(name, (GivenScores((each.score,)),)) for name, each in vetoes.items())
        (given,) = combined(asked_group, MemberAnswers("judge", first, others, (), 0.0)).given
        assert given.scores_G == (run.score,)
        assert given.again_G == (run.score_again,)


def test_each_veto_says_how_often_and_by_how_much_it_lowers() -> None:
    found = figures(OWN, VETO)
    (veto,) = found.vetoes
    assert veto.lowers is not None
    assert veto.by is not None
    # Both have a score of "a", "b" and "e": of these the veto lowers two, by a point each.
    assert (veto.lowers.mean, veto.by.mean) == pytest.approx((2 / 3, 2 / 3))
    assert veto.removes == 2  # " " and "d"
    assert veto.figures.judge == "frozen"
    assert found.own is not None
    assert found.own.unread == 2  # "c", in both rounds


def test_a_probe_is_compared_with_the_combined_score() -> None:
    found = figures(OWN, VETO, probes=(PROBE,))
    (probe,) = found.probes
    assert probe.gap is not None
    # (3 - 1), (2 - 2), (0 - 0), (4 - 4): "c" and "d" have no score.
    assert probe.gap.mean == pytest.approx(2 / 4)
    assert (probe.scores, probe.unread) == (6, 0)
    same = figures(OWN, probes=(OWN,))
    assert same.own is None
    assert same.probes[0].tau.correlation is not None
    assert same.probes[0].tau.correlation.mean == 1.0
    assert second_figures(GROUPS, MemberAnswers("judge", OWN, (), (), 0.0)) is None


@dataclass(frozen=True)
class NamedJudge(ScriptedJudge):
    """A scripted judge with what a run has to know about it."""

    name: str = ""
    asks_policy: bool = False
    compares: bool = False

    def costs(self) -> Mapping[str, JudgeCost]:
        return {}


def test_vetoes_are_asked_of_every_group_and_probes_of_the_candidates_alone() -> None:
    silent = NamedJudge(UNREADABLE.points, "gpt")
    seconds = SecondJudges((silent,), (NamedJudge(CONSTANT.points, "frozen"),), 0.25)
    sheet = (*GROUPS, AskedGroup("p0", "Why?", "tiers", ("good", "half"), ("All of it.", "All")))
    told: list[str] = []

    def progress(what: str) -> Callable[[int], None]:
        told.append(what)
        return lambda done: None

    members = asyncio.run(ask_members(CONSTANT, seconds, "judge", ("frozen",), sheet, 1, 4, progress))
    assert len(members.own.given) == len(members.vetoes[0].given) == 3
    assert len(members.probes[0].given) == 2
    assert members.probe_fraction == 0.25
    whole = combined(sheet, members)
    assert [given.scores_G for given in whole.given] == [(None, None, None, 3.0), (None, None), (None, None)]
    assert whole.unread == "I would rather not say."
    assert told == [
        f"of {count} groups scored by {name}" for count, name in ((3, "judge"), (3, "gpt"), (2, "frozen"))
    ]
