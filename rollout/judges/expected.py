"""The default way to score: one digit, and the score is that digit's expectation."""

from dynalign.configs.sections.judge import JudgeSettings
from dynalign.rollout.judges.grading import Grade
from dynalign.rollout.judges.respondents import NoAnswer, Respondent
from dynalign.rollout.judges.scoring import expected_score


class ExpectedGrader:
    """One forward pass per question; a group's candidates share the cached prefix.

    `unparsed` when the probability of all grades together is below `judge.min_digit_mass`: the judge does
    not answer the question."""

    def __init__(self, respondent: Respondent, settings: JudgeSettings) -> None:
        self.respondent = respondent
        self._grades = settings.grades
        self._min_digit_mass = settings.min_digit_mass

    async def grade(self, message: str, seed: int, fresh: bool) -> Grade:
        found = await self.respondent.grades(message, seed, fresh)
        if isinstance(found, NoAnswer):
            return Grade(None, found.status, found.cause)
        try:
            score, mass, probs = expected_score(found, self._grades)
        except ValueError as error:
            return Grade(None, "unparsed", f"{self.respondent.name}: {error}")
        if mass < self._min_digit_mass:
            return Grade(None, "unparsed", None, tuple(probs), mass)
        return Grade(score, "parsed", None, tuple(probs), mass)
