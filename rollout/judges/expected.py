"""The default judge: the policy answers with one digit, and the score is that digit's expectation."""

import asyncio
from collections.abc import Sequence

from dynalign.configs.sections.judge import JudgeSettings
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.engine.base import Engine, EngineRequest
from dynalign.rollout.judges.base import PolicyJudge
from dynalign.rollout.judges.scoring import aggregate_aspects, expected_score
from dynalign.rollout.judges.value_texts import ValueTexts
from dynalign.rollout.records import Verdict


class ExpectedJudge(PolicyJudge):
    """One forward pass per candidate and rubric; a group's candidates share the cached prefix.

    With several rubrics the aspects' scores are aggregated, and the verdict keeps no distribution. The
    verdict is `unparsed` when a rubric's digit mass is below `judge.min_digit_mass`."""

    def __init__(
        self,
        engine: Engine,
        contexts: Contexts,
        texts: ValueTexts,
        settings: JudgeSettings,
        context_limit: int,
    ) -> None:
        """Parameters: see `PolicyJudge`. Raises UserError when the tokenizer splits a digit."""
        super().__init__(engine, contexts, texts, settings, context_limit)
        self._digit_ids = contexts.digit_ids()

    async def score(
        self, prompt: str, texts_G: Sequence[str], seed: int, fresh: bool = False
    ) -> list[Verdict]:
        return list(await asyncio.gather(*(self._verdict(prompt, text, fresh) for text in texts_G)))

    async def _verdict(self, prompt: str, text: str, fresh: bool) -> Verdict:
        contexts = self._contexts_of(prompt, text)
        if (unasked := self._without_asking(text, contexts)) is not None:
            return unasked
        judged = await asyncio.gather(*(self._aspect(token_ids, fresh) for token_ids in contexts.values()))
        mass = min(digit_mass for _, digit_mass, _ in judged)
        probs_6 = tuple(judged[0][2]) if len(judged) == 1 else None
        if mass < self._settings.min_digit_mass:
            return Verdict(None, "unparsed", probs_6, mass)
        score = aggregate_aspects([score for score, _, _ in judged], self._settings.aggregate)
        return Verdict(score, "parsed", probs_6, mass)

    async def _aspect(self, token_ids: tuple[int, ...], fresh: bool) -> tuple[float, float, list[float]]:
        """(score, digit mass, q over the six digits) of one rubric."""
        result = await self._engine.generate(
            EngineRequest(token_ids, choice_ids=self._digit_ids, fresh=fresh)
        )
        return expected_score(result.choice_logprobs or ())
