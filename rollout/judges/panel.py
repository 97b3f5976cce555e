"""A panel: stances that score with a reason, read each other's reasons, and score again.

    round 0     every stance scores the candidate, alone
    round 1…n   every stance reads what the others said in the round before, and scores again; the rounds end
                early when no score has changed
    settle      the last scores of the stances become one by a rule (mean, trimmed mean); a stance
                with a veto may lower that score to its own, and never raises it

Stances of one model become alike in such rounds (arXiv 2604.26561, 2606.03032): ask different models.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dynalign.rollout.engine.base import request_seed
from dynalign.rollout.judges.grading import Grade, Grader, first_failure
from dynalign.rollout.judges.messages import Said, stance_message
from dynalign.rollout.judges.scoring import Settlement, grade_of, parse_reason, settled, vetoed
from dynalign.rollout.judges.value_texts import ValueTexts
from dynalign.rollout.records import Opinion, Verdict
from dynalign.run_folder.run_status import JudgeCost


class Stance(NamedTuple):
    """One member of a panel: Stance("harm", grader, vetoes=True)."""

    name: str
    """Names its text, `ValueTexts.stances`."""
    grader: Grader
    """Whom it asks."""
    vetoes: bool
    """Whether it may only lower the score."""


class PanelRules(NamedTuple):
    """How a panel works: PanelRules(rounds=1, settle="mean", grades=(0, 1, 2, 3, 4, 5))."""

    rounds: int
    """Revisions at most."""
    settle: Settlement
    """How the scores of the stances without a veto become one."""
    grades: Sequence[int]
    """The scale of the texts."""


class PanelJudge:
    """A candidate has a score if every stance has one in every round."""

    compares = False

    def __init__(self, stances: Sequence[Stance], texts: ValueTexts, rules: PanelRules) -> None:
        self.name = f"panel of {', '.join(stance.name for stance in stances)}"
        self.asks_policy = any(stance.grader.respondent.asks_policy for stance in stances)
        self._stances = tuple(stances)
        self._texts = texts
        self._rules = rules

    async def score(
        self, prompt: str, texts_G: Sequence[str], seed: int, fresh: bool = False
    ) -> list[Verdict]:
        jobs = (self._verdict(prompt, text, request_seed(seed, text), fresh) for text in texts_G)
        return list(await asyncio.gather(*jobs))

    def costs(self) -> Mapping[str, JudgeCost]:
        respondents = {id(stance.grader.respondent): stance.grader.respondent for stance in self._stances}
        return {each.name: each.meter.cost for each in respondents.values()}

    async def _verdict(self, prompt: str, text: str, seed: int, fresh: bool) -> Verdict:
        if not text.strip():
            return Verdict(0.0, "empty")
        opinions: list[Opinion] = []
        grades: list[Grade] = []
        for number in range(self._rules.rounds + 1):
            before = grades
            said = self._said(before)
            jobs = (
                stance.grader.grade(
                    stance_message(
                        self._texts, stance.name, prompt, text, said.get(stance.name),
                        [each for name, each in said.items() if name != stance.name],
                    ),
                    request_seed(seed, stance.name, number),
                    fresh,
                )
                for stance in self._stances
            )  # fmt: skip
            grades = list(await asyncio.gather(*jobs))
            opinions += self._opinions(grades, number)
            status = first_failure([grade.status for grade in grades])
            if status is not None:
                return Verdict(None, status, opinions=tuple(opinions))
            if [grade.score for grade in before] == [grade.score for grade in grades]:
                break
        return Verdict(self._settled(grades), "parsed", opinions=tuple(opinions))

    def _said(self, grades: Sequence[Grade]) -> dict[str, Said]:
        """Stance → what it said; empty before the first round."""
        pairs = zip(self._stances, grades, strict=False)
        scale = self._rules.grades
        return {
            stance.name: Said(
                stance.name, grade_of(grade.score or 0.0, scale), parse_reason(grade.text or "")
            )
            for stance, grade in pairs
        }

    def _opinions(self, grades: Sequence[Grade], number: int) -> list[Opinion]:
        return [
            Opinion(
                stance.grader.respondent.name,
                grade.score,
                grade.status,
                "veto" if stance.vetoes else "part",
                stance=stance.name,
                round=number,
                text=parse_reason(grade.text or "") or grade.text,
                answers=grade.answers,
            )
            for stance, grade in zip(self._stances, grades, strict=True)
        ]

    def _settled(self, grades: Sequence[Grade]) -> float:
        def scores(vetoes: bool) -> list[float]:
            pairs = zip(self._stances, grades, strict=True)
            chosen = [grade.score for stance, grade in pairs if stance.vetoes == vetoes]
            return [score for score in chosen if score is not None]

        return vetoed(settled(scores(vetoes=False), self._rules.settle), scores(vetoes=True))
