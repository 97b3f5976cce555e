"""Who scores the candidates of a group, and how: one small class per scorer behind the `Judge` protocol.

expected   one constrained token per candidate and rubric; score = sum of k q(k); one forward over a cached prefix
sampled    a short rationale and an integer in a JSON answer; the mean of `samples` of them
function   a Python callable (verifiable rewards)
"""

import asyncio
import hashlib
import importlib
import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Protocol

from dynalign.configs.errors import Mistake, UserError
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.judge import JudgeSettings
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.engine.base import Engine, EngineRequest
from dynalign.rollout.judges.scoring import aggregate_aspects, expected_score, parse_verdict
from dynalign.rollout.judges.value_texts import ValueTexts, judge_user_message
from dynalign.rollout.records import Verdict

RewardFunction = Callable[[str, str], float]

# Order of the keys matters: the rationale is written before the score it leads to.
_VERDICT_SCHEMA = (
    '{"type":"object","properties":{"rationale":{"type":"string","maxLength":%d},"score":{"type":"integer","enum":[0,1,2,3,4,5]}},'
    '"required":["rationale","score"],"additionalProperties":false}'
)
_CHARACTERS_PER_TOKEN = (
    3  # a cautious estimate, so that the constrained rationale closes before the token limit
)


def request_seed(run_seed: int, *what: int | str) -> int:
    """A request's seed: 31 bits of a hash of the run's seed and of what is asked, so that no two requests share randomness."""
    digest = hashlib.sha256(repr((run_seed, *what)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


class Judge(Protocol):
    """Scores all candidates of one prompt under one policy version; `fresh`: without reading cached key-values."""

    async def score(
        self, prompt: str, texts_G: Sequence[str], seed: int, fresh: bool = False
    ) -> list[Verdict]: ...


class _PolicyAsJudge:
    """What the scorers that ask the policy share: the judge's context, and what happens when it does not fit the engine."""

    def __init__(
        self,
        engine: Engine,
        contexts: Contexts,
        texts: ValueTexts,
        settings: JudgeSettings,
        context_limit: int,
    ) -> None:
        self._engine, self._contexts, self._texts, self._settings = engine, contexts, texts, settings
        self._context_limit = context_limit - answer_tokens(settings)

    def _contexts_of(self, prompt: str, text: str) -> dict[str, tuple[int, ...]]:
        """One judge context per rubric."""
        messages = {name: judge_user_message(self._texts, name, prompt, text) for name in self._texts.rubrics}
        return {
            name: self._contexts.judge_context(message, self._texts.judge_prefill)
            for name, message in messages.items()
        }

    def _settled(self, text: str, contexts: dict[str, tuple[int, ...]]) -> Verdict | None:
        """The verdict of a candidate that needs no judge, or that cannot be shown to one."""
        if not text.strip():
            return Verdict(0.0, "empty")
        longest = max(map(len, contexts.values()))
        if longest > self._context_limit:
            return Verdict(
                None,
                "unparsed",
                text=f"the judge's context has {longest} tokens, the engine takes {self._context_limit}",
            )
        return None


class ExpectedJudge(_PolicyAsJudge):
    """The policy's expected digit. With several rubrics the aspects' scores are aggregated."""

    def __init__(
        self,
        engine: Engine,
        contexts: Contexts,
        texts: ValueTexts,
        settings: JudgeSettings,
        context_limit: int,
    ) -> None:
        super().__init__(engine, contexts, texts, settings, context_limit)
        self._digit_ids = contexts.digit_ids()

    async def score(
        self, prompt: str, texts_G: Sequence[str], seed: int, fresh: bool = False
    ) -> list[Verdict]:
        return list(await asyncio.gather(*(self._verdict(prompt, text, fresh) for text in texts_G)))

    async def _verdict(self, prompt: str, text: str, fresh: bool) -> Verdict:
        contexts = self._contexts_of(prompt, text)
        if (settled := self._settled(text, contexts)) is not None:
            return settled
        judged = await asyncio.gather(*(self._aspect(token_ids, fresh) for token_ids in contexts.values()))
        mass = min(digit_mass for _, digit_mass, _ in judged)
        probs_6 = tuple(judged[0][2]) if len(judged) == 1 else None
        if mass < self._settings.min_digit_mass:
            return Verdict(None, "unparsed", probs_6, mass)
        return Verdict(
            aggregate_aspects([score for score, _, _ in judged], self._settings.aggregate),
            "parsed",
            probs_6,
            mass,
        )

    async def _aspect(self, token_ids: tuple[int, ...], fresh: bool) -> tuple[float, float, list[float]]:
        result = await self._engine.generate(EngineRequest(token_ids, digit_ids=self._digit_ids, fresh=fresh))
        return expected_score(result.digit_logprobs_6 or ())


class SampledJudge(_PolicyAsJudge):
    """The paper's way: a rationale, then an integer, read from the verdict field only."""

    def __init__(
        self,
        engine: Engine,
        contexts: Contexts,
        texts: ValueTexts,
        settings: JudgeSettings,
        context_limit: int,
    ) -> None:
        super().__init__(engine, contexts, texts, settings, context_limit)
        self._schema = _VERDICT_SCHEMA % (_CHARACTERS_PER_TOKEN * max(1, settings.max_rationale_tokens - 16))

    async def score(
        self, prompt: str, texts_G: Sequence[str], seed: int, fresh: bool = False
    ) -> list[Verdict]:
        # A new seed is noise enough: it is drawn anew, not merely rounded anew.
        jobs = (self._verdict(prompt, text, request_seed(seed, index)) for index, text in enumerate(texts_G))
        return list(await asyncio.gather(*jobs))

    async def _verdict(self, prompt: str, text: str, seed: int) -> Verdict:
        contexts = self._contexts_of(prompt, text)
        if (settled := self._settled(text, contexts)) is not None:
            return settled
        aspects = await asyncio.gather(
            *(self._aspect(ids, request_seed(seed, name)) for name, ids in contexts.items())
        )
        raw = "\n".join(answer for _, answers in aspects for answer in answers)
        scores = [score for score, _ in aspects if score is not None]
        if len(scores) < len(aspects):
            return Verdict(None, "unparsed", text=raw)
        return Verdict(aggregate_aspects(scores, self._settings.aggregate), "parsed", text=raw)

    async def _aspect(self, token_ids: tuple[int, ...], seed: int) -> tuple[float | None, list[str]]:
        requests = [
            EngineRequest(
                token_ids,
                max_tokens=self._settings.max_rationale_tokens,
                seed=request_seed(seed, sample),
                json_schema=self._schema,
            )
            for sample in range(self._settings.samples)
        ]
        answers = [
            self._contexts.text(result.token_ids)
            for result in await asyncio.gather(*map(self._engine.generate, requests))
        ]
        read = [score for score in map(parse_verdict, answers) if score is not None]
        return (fmean(read) if read else None), answers


class FunctionJudge:
    """A verifiable reward. Runs in a thread, so that a slow function does not hold the engine's event loop."""

    def __init__(self, function: RewardFunction, name: str) -> None:
        self._function, self._name = function, name

    async def score(
        self, prompt: str, texts_G: Sequence[str], seed: int, fresh: bool = False
    ) -> list[Verdict]:
        return [
            self._verdict(text, await asyncio.to_thread(self._function, prompt, text)) for text in texts_G
        ]

    def _verdict(self, text: str, score: float) -> Verdict:
        if not (math.isfinite(score) and 0.0 <= score <= 5.0):
            raise UserError(
                [
                    Mistake(
                        "judge.function",
                        self._name,
                        f"returned {score!r}",
                        "return a finite number from 0 to 5",
                    )
                ]
            )
        return Verdict(float(score), "parsed" if text.strip() else "empty")


def load_function(name: str) -> RewardFunction:
    """The callable named `package.module:callable`. Raises UserError with the place that fails."""
    module_name, _, attribute = name.partition(":")
    try:
        function = vars(importlib.import_module(module_name))[attribute]
    except (ImportError, KeyError, ValueError) as error:
        raise UserError(
            [Mistake("judge.function", name, f"cannot be imported ({error})", "give package.module:callable")]
        ) from error
    if not callable(function):
        raise UserError(
            [
                Mistake(
                    "judge.function",
                    name,
                    "is not callable",
                    "name a function f(prompt, completion) -> score",
                )
            ]
        )
    return function  # type: ignore[no-any-return]


def answer_tokens(settings: JudgeSettings) -> int:
    """Tokens that the judge's own answer may take."""
    return 1 if settings.scorer == "expected" else settings.max_rationale_tokens


def context_tokens(contexts: Contexts, texts: ValueTexts, run: RunSettings) -> int:
    """The longest context, answer included, that an engine of this run has to hold.

    A candidate's text is encoded anew for the judge and can take more tokens than were sampled: room for twice as many.
    """
    sampled = run.prompts.max_tokens + run.rollout.max_completion_tokens
    if run.judge.kind == "function":
        return sampled
    messages = (judge_user_message(texts, name, "", "") for name in texts.rubrics)
    frame = max(len(contexts.judge_context(message, texts.judge_prefill)) for message in messages)
    return frame + run.prompts.max_tokens + 2 * run.rollout.max_completion_tokens + answer_tokens(run.judge)


def make_judge(
    engine: Engine, contexts: Contexts, texts: ValueTexts, settings: JudgeSettings, context_limit: int
) -> Judge:
    """The judge that the settings name; `context_limit`: tokens that the engine holds per sequence."""
    if settings.kind == "function":
        return FunctionJudge(load_function(settings.function or ""), settings.function or "")
    scorer = ExpectedJudge if settings.scorer == "expected" else SampledJudge
    return scorer(engine, contexts, texts, settings, context_limit)
