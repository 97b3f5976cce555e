"""One call that puts a whole group in order; a candidate's place becomes its score.

    score = 5 · (candidates placed behind it) / (G - 1)

The judge is shown the candidates in an order that the seed shuffles, so that its liking for a place cannot
favour one candidate. The places are recorded: from them `learner/second_opinions.py` measures that liking.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from dynalign.configs.sections.judge import JudgeSettings
from dynalign.rollout.engine.base import request_seed
from dynalign.rollout.judges.base import Judge
from dynalign.rollout.judges.grading import GradeStatus, first_failure
from dynalign.rollout.judges.messages import TOKENS_PER_NUMBER, ranked_message
from dynalign.rollout.judges.persistent import Again, persistently
from dynalign.rollout.judges.respondents import NoAnswer, Respondent
from dynalign.rollout.judges.sampled import reasoned_schema
from dynalign.rollout.judges.scoring import order_scores, parse_order
from dynalign.rollout.judges.value_texts import ValueTexts
from dynalign.rollout.records import HIGHEST_SCORE, Opinion, Verdict
from dynalign.run_folder.run_status import JudgeCost

_FRAME_TOKENS = 16
"""The braces and the two field names."""


class _Ranking(NamedTuple):
    """One ranking of the candidates that were shown."""

    scores: dict[int, float]
    """Index of a candidate → points; empty without a readable order."""
    positions: dict[int, int]
    """Index of a candidate → the place at which it was shown, from 0."""
    status: GradeStatus
    text: str
    """The raw answer, or why there is none."""
    answers: tuple[str, ...] = ()
    """The raw answer, where there is one."""


class RankedJudge:
    """The mean of `judge.samples` rankings, each with a shuffle of its own; an unreadable one is left out.

    An answer without text is behind every other one, and is not shown. One candidate alone, such as a
    held-out answer, cannot be ranked: `alone` scores it."""

    compares = True

    def __init__(
        self, respondent: Respondent, texts: ValueTexts, settings: JudgeSettings, alone: Judge
    ) -> None:
        """alone: scores a candidate that has no others beside it, on the absolute scale."""
        self.name = f"ranked by {respondent.name}"
        self.asks_policy = respondent.asks_policy
        self._respondent = respondent
        self._texts = texts
        self._samples = settings.samples
        self._rationale_tokens = settings.max_rationale_tokens
        self._again = Again(settings.failed_again, settings.unparsed_again)
        self._alone = alone

    async def score(
        self, prompt: str, texts_G: Sequence[str], seed: int, fresh: bool = False
    ) -> list[Verdict]:
        if len(texts_G) == 1:
            return await self._alone.score(prompt, texts_G, seed, fresh)
        shown = [index for index, text in enumerate(texts_G) if text.strip()]
        if len(shown) < 2:
            best = Verdict(float(HIGHEST_SCORE), "parsed")
            return [best if index in shown else Verdict(0.0, "empty") for index in range(len(texts_G))]
        seeds = [request_seed(seed, "ranking", sample) for sample in range(self._samples)]

        async def ranking(seed: int) -> _Ranking:
            return await self._ranking(prompt, texts_G, shown, seed)

        rankings = await asyncio.gather(*(persistently(ranking, each, self._again) for each in seeds))
        return [
            self._verdict(rankings, index) if index in shown else Verdict(0.0, "empty")
            for index in range(len(texts_G))
        ]

    def costs(self) -> Mapping[str, JudgeCost]:
        return {self._respondent.name: self._respondent.meter.cost}

    async def _ranking(
        self, prompt: str, texts_G: Sequence[str], shown: Sequence[int], seed: int
    ) -> _Ranking:
        order = list(shown)
        random.Random(seed).shuffle(order)
        positions = {index: position for position, index in enumerate(order)}
        message = ranked_message(self._texts, prompt, [texts_G[index] for index in order])
        numbers = f'{{"type":"integer","minimum":1,"maximum":{len(order)}}}'
        rule = f'{{"type":"array","items":{numbers},"minItems":{len(order)},"maxItems":{len(order)}}}'
        list_tokens = TOKENS_PER_NUMBER * len(order)
        schema = reasoned_schema("order", rule, self._rationale_tokens, _FRAME_TOKENS)
        answers = await self._respondent.write(message, 1, self._rationale_tokens + list_tokens, seed, schema)
        if isinstance(answers, NoAnswer):
            return _Ranking({}, positions, answers.status, answers.cause)
        raw = "\n".join(answers)
        best_first = parse_order(raw, len(order))
        if best_first is None:
            return _Ranking({}, positions, "unparsed", raw, (raw,))
        scores = order_scores(best_first, order, len(texts_G))
        return _Ranking(scores, positions, "parsed", raw, (raw,))

    def _verdict(self, rankings: Sequence[_Ranking], index: int) -> Verdict:
        opinions = tuple(
            Opinion(
                self._respondent.name,
                ranking.scores.get(index),
                ranking.status,
                position=ranking.positions[index],
                answers=ranking.answers,
            )
            for ranking in rankings
        )
        text = "\n".join(ranking.text for ranking in rankings)
        scores = [ranking.scores[index] for ranking in rankings if ranking.scores]
        if scores:
            return Verdict(fmean(scores), "parsed", text=text, opinions=opinions)
        failure = first_failure([ranking.status for ranking in rankings])
        return Verdict(None, failure or "unparsed", text=text, opinions=opinions)
