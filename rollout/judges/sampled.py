"""The paper's judge (arXiv 2512.05464): the policy writes a rationale and an integer, as constrained JSON."""

import asyncio
from collections.abc import Sequence
from statistics import fmean

from dynalign.configs.sections.judge import JudgeSettings
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.engine.base import Engine, EngineRequest, request_seed
from dynalign.rollout.judges.base import PolicyJudge
from dynalign.rollout.judges.scoring import aggregate_aspects, parse_verdict
from dynalign.rollout.judges.value_texts import ValueTexts
from dynalign.rollout.records import Verdict

# The order of the keys matters: the rationale is written before the score that it leads to.
_VERDICT_SCHEMA = (
    '{"type":"object","properties":{"rationale":{"type":"string","maxLength":%d},'
    '"score":{"type":"integer","enum":[0,1,2,3,4,5]}},'
    '"required":["rationale","score"],"additionalProperties":false}'
)
# A low estimate, so that the grammar ends the rationale before the token limit cuts the answer off.
_CHARACTERS_PER_TOKEN = 3
# The braces, the two field names and the score around the rationale.
_FRAME_TOKENS = 16


class SampledJudge(PolicyJudge):
    """The mean of `judge.samples` scores per rubric, each read from the field `score` alone.

    Unreadable answers are left out of the mean; a rubric without one readable answer makes the verdict
    `unparsed`. The verdict keeps all raw answers."""

    def __init__(
        self,
        engine: Engine,
        contexts: Contexts,
        texts: ValueTexts,
        settings: JudgeSettings,
        context_limit: int,
    ) -> None:
        """Parameters: see `PolicyJudge`."""
        super().__init__(engine, contexts, texts, settings, context_limit)
        rationale_tokens = max(1, settings.max_rationale_tokens - _FRAME_TOKENS)
        self._schema = _VERDICT_SCHEMA % (_CHARACTERS_PER_TOKEN * rationale_tokens)

    async def score(
        self, prompt: str, texts_G: Sequence[str], seed: int, fresh: bool = False
    ) -> list[Verdict]:
        # `fresh` is not needed: with a new seed a second score is a new sample, and not just rounded
        # otherwise.
        jobs = (self._verdict(prompt, text, request_seed(seed, index)) for index, text in enumerate(texts_G))
        return list(await asyncio.gather(*jobs))

    async def _verdict(self, prompt: str, text: str, seed: int) -> Verdict:
        contexts = self._contexts_of(prompt, text)
        if (unasked := self._without_asking(text, contexts)) is not None:
            return unasked
        jobs = (self._aspect(ids, request_seed(seed, name)) for name, ids in contexts.items())
        aspects = await asyncio.gather(*jobs)
        raw = "\n".join(answer for _, answers in aspects for answer in answers)
        scores = [score for score, _ in aspects if score is not None]
        if len(scores) < len(aspects):
            return Verdict(None, "unparsed", text=raw)
        return Verdict(aggregate_aspects(scores, self._settings.aggregate), "parsed", text=raw)

    async def _aspect(self, token_ids: tuple[int, ...], seed: int) -> tuple[float | None, list[str]]:
        """One rubric's mean score, None if no answer was readable, and its raw answers."""
        requests = [
            EngineRequest(
                token_ids,
                max_tokens=self._settings.max_rationale_tokens,
                seed=request_seed(seed, sample),
                json_schema=self._schema,
            )
            for sample in range(self._settings.samples)
        ]
        results = await asyncio.gather(*map(self._engine.generate, requests))
        answers = [self._contexts.text(result.token_ids) for result in results]
        read = [score for score in map(parse_verdict, answers) if score is not None]
        return (fmean(read) if read else None), answers
