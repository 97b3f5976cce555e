"""Scores each candidate by itself, by every rubric in use: the judge of `self`, `frozen` and one model."""

import asyncio
from collections.abc import Mapping, Sequence

from dynalign.rollout.engine.base import request_seed
from dynalign.rollout.judges.grading import Grade, Grader, first_failure
from dynalign.rollout.judges.scoring import Aggregation, aggregate_aspects
from dynalign.rollout.judges.value_texts import ValueTexts, judge_user_message
from dynalign.rollout.records import Opinion, Verdict
from dynalign.run_folder.run_status import JudgeCost


class RubricJudge:
    """With several rubrics the aspects' scores are aggregated, and kept as opinions with their distributions
    and answers; the verdict then keeps none. A rubric without a score leaves the candidate without one: a
    mean over the others would be of another level."""

    compares = False

    def __init__(self, grader: Grader, texts: ValueTexts, aggregate: Aggregation) -> None:
        self.name = grader.respondent.name
        self.asks_policy = grader.respondent.asks_policy
        self._grader = grader
        self._texts = texts
        self._aggregate = aggregate

    async def score(
        self, prompt: str, texts_G: Sequence[str], seed: int, fresh: bool = False
    ) -> list[Verdict]:
        # The seed belongs to the text: a candidate that is asked about again by itself gives equal requests.
        jobs = (self._verdict(prompt, text, request_seed(seed, text), fresh) for text in texts_G)
        return list(await asyncio.gather(*jobs))

    def costs(self) -> Mapping[str, JudgeCost]:
        return {self.name: self._grader.respondent.meter.cost}

    async def _verdict(self, prompt: str, text: str, seed: int, fresh: bool) -> Verdict:
        if not text.strip():
            return Verdict(0.0, "empty")
        rubrics = tuple(self._texts.rubrics)
        messages = (judge_user_message(self._texts, name, prompt, text) for name in rubrics)
        jobs = (
            self._grader.grade(message, request_seed(seed, name), fresh)
            for name, message in zip(rubrics, messages, strict=True)
        )
        grades = await asyncio.gather(*jobs)
        if len(grades) == 1:
            (only,) = grades
            read = (only.score, only.status, only.probs, only.mass, only.text)
            return Verdict(*read, answers=only.answers)
        return self._aggregated(dict(zip(rubrics, grades, strict=True)))

    def _aggregated(self, grades: Mapping[str, Grade]) -> Verdict:
        masses = [grade.mass for grade in grades.values() if grade.mass is not None]
        said = [grade.text for grade in grades.values() if grade.text is not None]
        scores = [grade.score for grade in grades.values() if grade.score is not None]
        status = first_failure([grade.status for grade in grades.values()])
        return Verdict(
            aggregate_aspects(scores, self._aggregate) if status is None else None,
            status or "parsed",
            digit_mass=min(masses) if masses else None,
            text="\n".join(said) if said else None,
            opinions=tuple(
                Opinion(
                    self.name,
                    grade.score,
                    grade.status,
                    rubric=name,
                    text=grade.text,
                    digit_probs=grade.probs,
                    digit_mass=grade.mass,
                    answers=grade.answers,
                )
                for name, grade in grades.items()
            ),
        )
