"""The paper's way to score (arXiv 2512.05464): a rationale and an integer, as constrained JSON."""

from dynalign.configs.sections.judge import JudgeSettings
from dynalign.rollout.judges.grading import Grade, GradeStatus
from dynalign.rollout.judges.respondents import NoAnswer, Respondent
from dynalign.rollout.judges.scoring import sampled_score

# The order of the keys matters: the rationale is written before what it leads to.
_SCHEMA = (
    '{"type":"object","properties":{"rationale":{"type":"string","maxLength":%d},%s},'
    '"required":["rationale","%s"],"additionalProperties":false}'
)
# A low estimate, so that the grammar ends the rationale before the token limit cuts the answer off.
_CHARACTERS_PER_TOKEN = 3
# The braces, the two field names and the score around the rationale.
_FRAME_TOKENS = 16


def reasoned_schema(field: str, rule: str, answer_tokens: int, frame_tokens: int = _FRAME_TOKENS) -> str:
    """The JSON schema of an answer of `answer_tokens` tokens: a rationale, then one field.

    field: its name. rule: its schema. frame_tokens: what all but the rationale takes."""
    characters = _CHARACTERS_PER_TOKEN * max(1, answer_tokens - frame_tokens)
    return _SCHEMA % (characters, f'"{field}":{rule}', field)


def sampled_schema(settings: JudgeSettings) -> str:
    """The JSON schema of a rationale and a grade."""
    allowed = ",".join(map(str, settings.grades))
    rule = f'{{"type":"integer","enum":[{allowed}]}}'
    return reasoned_schema("score", rule, settings.max_rationale_tokens)


class SampledGrader:
    """The mean of `judge.samples` grades, each read from the field `score` alone.

    Unreadable answers are left out of the mean; without one readable answer the grade is `unparsed`. The
    grade keeps all raw answers."""

    def __init__(self, respondent: Respondent, settings: JudgeSettings) -> None:
        self.respondent = respondent
        self._settings = settings
        self.schema = sampled_schema(settings)
        """Of every answer."""

    async def grade(self, message: str, seed: int, fresh: bool) -> Grade:
        # `fresh` is not needed: with a new seed a second score is a new sample, and not just rounded
        # otherwise.
        settings = self._settings
        answers = await self.respondent.write(
            message, settings.samples, settings.max_rationale_tokens, seed, self.schema
        )
        if isinstance(answers, NoAnswer):
            return Grade(None, answers.status, answers.cause)
        raw = "\n".join(answers)
        score = sampled_score(answers, settings.grades)
        status: GradeStatus = "unparsed" if score is None else "parsed"
        return Grade(score, status, raw, answers=tuple(answers))
