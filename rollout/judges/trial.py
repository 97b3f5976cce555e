"""One question to every endpoint and pool that judges, before a run starts, about as long as its longest: it
shows a wrong address, key or model, a context that is too short, and absent log-probabilities.
"""

import asyncio
from collections.abc import Sequence

from dynalign.configs.errors import Mistake
from dynalign.configs.schema import RunSettings
from dynalign.rollout.judges.messages import Said, ranked_message, stance_message
from dynalign.rollout.judges.respondents import AskerRespondent, Askers, NoAnswer
from dynalign.rollout.judges.sampled import SampledGrader
from dynalign.rollout.judges.value_texts import ValueTexts, judge_user_message

_WORD = "word "
"""About a token."""


async def trial_mistakes(run: RunSettings, texts: ValueTexts, askers: Askers) -> list[Mistake]:
    """A mistake for each endpoint or pool that cannot be asked as this run's judge asks."""
    asked = [name for name in run.judge.asked if name in askers]
    found = await asyncio.gather(*(_tried(name, run, texts, askers) for name in asked))
    return [mistake for mistake in found if mistake is not None]


async def _tried(name: str, run: RunSettings, texts: ValueTexts, askers: Askers) -> Mistake | None:
    judge = run.judge
    respondent = AskerRespondent(name, askers[name], list(map(str, judge.grades)))
    message = max(_messages(run, texts), key=len)
    answer: Sequence[float] | Sequence[str] | NoAnswer
    if judge.scorer == "expected" and judge.kind != "ranked":
        answer = await respondent.grades(message, run.seed, fresh=False)
    else:
        schema = SampledGrader(respondent, judge).schema
        answer = await respondent.write(message, 1, judge.max_rationale_tokens, run.seed, schema)
    if not isinstance(answer, NoAnswer):
        return None
    asked = f"the longest question of this run, about {len(message.split()):,} words"
    if answer.status == "unparsed":
        return Mistake("judge.scorer", judge.scorer, f"{name} reports no log-probabilities", "use sampled")
    rule = f"does not answer {asked}: {answer.cause}"
    return Mistake("judge", name, rule, "see that it does, or ask another")


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
