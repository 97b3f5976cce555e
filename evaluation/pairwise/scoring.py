"""Scores answers by the value's rubrics: as a whole, and by each aspect. Who scores is an `Asker`."""

import asyncio
from collections.abc import Callable, Sequence

from dynalign.configs.errors import EndpointError, EndpointRefused
from dynalign.configs.sections.judge import JudgeSettings
from dynalign.endpoint.base import Answers, Asker, Question
from dynalign.evaluation.pairwise.aspects import WHOLE
from dynalign.rollout.engine.base import request_seed
from dynalign.rollout.judges.expected import ExpectedGrader
from dynalign.rollout.judges.respondents import AskedModel, AskerRespondent
from dynalign.rollout.judges.rubric_judge import RubricJudge
from dynalign.rollout.judges.sampled import SampledGrader
from dynalign.rollout.judges.value_texts import UNIFIED, ValueTexts
from dynalign.rollout.records import Verdict


class _Remembering:
    """An asker that remembers an error of its own, which a judge takes for a missing score."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self.error: EndpointError | None = None

    async def ask(self, question: Question) -> Answers:
        try:
            return await self._asker.ask(question)
        except EndpointRefused:  # of this question alone
            raise
        except EndpointError as error:
            self.error = self.error or error
            raise


async def score_answers(
    asked: AskedModel,
    texts: ValueTexts,
    settings: JudgeSettings,
    items: Sequence[tuple[str, str]],
    seed: int,
    in_flight: int = 64,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[dict[str, float | None], ...]:
    """Rubric → score in points of each (prompt, answer); the rubric of the whole value is named `whole`.

    texts: with the rubrics to score by. settings: how a score is made. An unreadable score is None. Raises
    EndpointUnreachable, BudgetReached or JournalError; what was answered is kept."""
    remembering = _Remembering(asked.asker)
    respondent = AskerRespondent(asked.model, AskedModel(remembering, asked.model))
    make = ExpectedGrader if settings.scorer == "expected" else SampledGrader
    judge = RubricJudge(make(respondent, settings), texts, settings.aggregate)
    room = asyncio.Semaphore(max(1, in_flight // len(texts.rubrics)))
    done = 0

    async def scores(item: tuple[str, str]) -> dict[str, float | None]:
        nonlocal done
        async with room:
            if remembering.error is not None:
                raise remembering.error
            (verdict,) = await judge.score(item[0], [item[1]], request_seed(seed, "score", *item))
        done += 1
        progress(done)
        return _by_rubric(verdict, tuple(texts.rubrics))

    tasks = [asyncio.ensure_future(scores(item)) for item in items]
    try:
        found = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if remembering.error is not None:
        raise remembering.error
    return tuple(found)


def _by_rubric(verdict: Verdict, rubrics: Sequence[str]) -> dict[str, float | None]:
    names = {rubric: WHOLE if rubric == UNIFIED else rubric for rubric in rubrics}
    if verdict.opinions:
        return {names[each.rubric]: each.score for each in verdict.opinions if each.rubric in names}
    return dict.fromkeys(names.values(), verdict.score)
