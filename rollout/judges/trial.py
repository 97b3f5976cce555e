"""One question to an endpoint that judges, before a run starts, about as long as its longest: it shows a
context that is too short, a budget below one question, and absent log-probabilities.
"""

from dynalign.configs.schema import RunSettings
from dynalign.endpoint.base import Question
from dynalign.rollout.judges.messages import TOKENS_PER_NUMBER, Said, ranked_message, stance_message
from dynalign.rollout.judges.respondents import grades_question, written_question
from dynalign.rollout.judges.sampled import sampled_schema
from dynalign.rollout.judges.value_texts import ValueTexts, judge_user_message

_WORD = "word "
"""About a token."""


def asks_for_grades(run: RunSettings) -> bool:
    """Whether the trial asks for log-probabilities of grades, not for a text."""
    return run.judge.scorer == "expected" and run.judge.kind != "ranked"


def trial_question(run: RunSettings, texts: ValueTexts, model: str) -> Question:
    """The longest question that this run's judges ask, with words in the place of prompt, candidates and
    reasons. model: the name under which it is served."""
    judge = run.judge
    message = max(_messages(run, texts), key=len)
    if asks_for_grades(run):
        return grades_question(model, message, run.seed, list(map(str, judge.grades)))
    numbers = TOKENS_PER_NUMBER * run.rollout.group_size if judge.kind == "ranked" else 0
    tokens = judge.max_rationale_tokens + numbers
    samples = 1 if judge.kind == "ranked" else judge.samples
    return written_question(model, message, samples, tokens, run.seed, sampled_schema(judge))


def _messages(run: RunSettings, texts: ValueTexts) -> list[str]:
    task = _WORD * run.prompts.max_tokens
    candidate = _WORD * run.rollout.max_completion_tokens
    if texts.ranked_template:
        return [ranked_message(texts, task, [candidate] * run.rollout.group_size)]
    reason = _WORD * run.judge.max_rationale_tokens
    said = [Said(stance, run.judge.highest_grade, reason) for stance in texts.stances]
    messages = [stance_message(texts, each.stance, task, candidate, said[0], said[1:]) for each in said]
    rubrics = (*texts.rubrics, *texts.probe_rubrics)
    return messages or [judge_user_message(texts, name, task, candidate) for name in rubrics]
