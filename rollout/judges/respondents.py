"""Who is asked for verdicts: a rollout engine, or an endpoint or pool. Judges know one protocol.

    grades   one token: the log-probability of each grade
    write    n texts, each one JSON object

What comes back is one of three: an answer, `NoAnswer` with `unparsed` (the question does not fit, or the
server cannot answer its kind), or `NoAnswer` with `unreachable` (the call failed). Each respondent counts
what it costs.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from dynalign.configs.errors import EndpointError
from dynalign.endpoint.base import Answers, Asker, Message, Question
from dynalign.rollout.contexts import DIGITS, Contexts
from dynalign.rollout.engine.base import Engine, EngineRequest, EngineResult, request_seed
from dynalign.rollout.judges.value_texts import JUDGE_PREFILLS
from dynalign.run_folder.run_status import JudgeCost

_TOKENS_PER_PRICE = 1e6
"""Prices are of a million tokens."""


class NoAnswer(NamedTuple):
    """Why a question has no answer: NoAnswer("unreachable", "http://judge/v1: nothing answered")."""

    status: Literal["unparsed", "unreachable"]
    """`unreachable`: the call failed. `unparsed`: the question could not be put, or the answer cannot be
    read."""
    cause: str
    """A sentence."""


@dataclass(frozen=True, slots=True)
class AskedModel:
    """A model that judges can ask: an endpoint's, or a pool's.

    Example: `AskedModel(endpoint.asker("judge"), "gpt-oss-20b", input_price=0.15, output_price=0.6)`.
    """

    asker: Asker
    """Whoever carries the questions."""
    model: str
    """The name under which the model is served, for `Question.model`."""
    input_price: float | None = None
    """Of a million tokens that are read; None where tokens have no price."""
    output_price: float | None = None
    """Of a million tokens that are written."""


Askers = Mapping[str, AskedModel]
"""Name in the settings of the judge → the model that is asked under it. `frozen`: the initial policy."""


class Meter:
    """Counts what one respondent or function costs."""

    def __init__(self) -> None:
        self._cost = JudgeCost()

    @property
    def cost(self) -> JudgeCost:
        """What there was since the start."""
        return self._cost

    @contextlib.contextmanager
    def question(self) -> Iterator[None]:
        """Around one question: counts it, and its seconds."""
        started_s = time.monotonic()
        try:
            yield
        finally:
            self._cost += JudgeCost(questions=1, seconds=time.monotonic() - started_s)

    def failed(self) -> None:
        """The question's call has failed."""
        self._cost += JudgeCost(failed=1)

    def tokens(self, prompt: int, completion: int, money: float | None = None) -> None:
        """The question's tokens, and what they cost."""
        self._cost += JudgeCost(prompt_tokens=prompt, completion_tokens=completion, money=money)


class Respondent(Protocol):
    """Answers a judge's questions."""

    name: str
    """`self`, `frozen`, or the name of an endpoint or pool."""
    asks_policy: bool
    """Whether the live policy answers, so that its weights may not be swapped between two answers."""
    meter: Meter
    """What its answers cost."""

    async def grades(self, message: str, seed: int, fresh: bool) -> Sequence[float] | NoAnswer:
        """Log-probability in nats of each grade of the scale as the answer's first token.

        fresh: compute the whole context anew. Raises EngineError when a rollout engine fails."""
        ...

    async def write(
        self, message: str, n: int, max_tokens: int, seed: int, schema: str
    ) -> Sequence[str] | NoAnswer:
        """n answers of at most `max_tokens` tokens, constrained to a JSON schema where that is offered.

        Raises EngineError when a rollout engine fails."""
        ...


class EngineRespondent:
    """A rollout engine, which holds the live policy; with `initial`, the policy before training on it."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        contexts: Contexts,
        context_limit: int,
        digits: Sequence[str] | None = DIGITS,
        initial: bool = False,
    ) -> None:
        """context_limit: tokens that the engine holds per sequence. digits: the grades as texts, None if they
        are never asked for. initial: ask without the adapter, which the engine must hold as one.

        Raises UserError when the tokenizer splits a digit."""
        self.name = name
        self.asks_policy = not initial
        self.meter = Meter()
        self._engine = engine
        self._contexts = contexts
        self._context_limit = context_limit
        self._digit_ids = () if digits is None else contexts.digit_ids(digits=digits)
        self._initial = initial

    async def grades(self, message: str, seed: int, fresh: bool) -> Sequence[float] | NoAnswer:
        token_ids = self._context(message, JUDGE_PREFILLS["expected"], 1)
        if isinstance(token_ids, NoAnswer):
            return token_ids
        request = EngineRequest(token_ids, choice_ids=self._digit_ids, fresh=fresh, initial=self._initial)
        return (await self._asked(request)).choice_logprobs or ()

    async def write(
        self, message: str, n: int, max_tokens: int, seed: int, schema: str
    ) -> Sequence[str] | NoAnswer:
        token_ids = self._context(message, JUDGE_PREFILLS["sampled"], max_tokens)
        if isinstance(token_ids, NoAnswer):
            return token_ids
        requests = (
            EngineRequest(
                token_ids,
                max_tokens=max_tokens,
                seed=request_seed(seed, sample),
                json_schema=schema,
                initial=self._initial,
            )
            for sample in range(n)
        )
        results = await asyncio.gather(*map(self._asked, requests))
        return [self._contexts.text(result.token_ids) for result in results]

    def _context(self, message: str, prefill: str, answer_tokens: int) -> tuple[int, ...] | NoAnswer:
        token_ids = self._contexts.judge_context(message, prefill)
        most = self._context_limit - answer_tokens
        if len(token_ids) > most:
            cause = f"the judge's context has {len(token_ids)} tokens, the engine takes {most}"
            return NoAnswer("unparsed", cause)
        return token_ids

    async def _asked(self, request: EngineRequest) -> EngineResult:
        with self.meter.question():
            result = await self._engine.generate(request)
            self.meter.tokens(len(request.token_ids), len(result.token_ids))
            return result


def grades_question(model: str, message: str, seed: int, digits: Sequence[str]) -> Question:
    """What an endpoint or pool is asked for `Respondent.grades`. digits: the grades as texts.

    The seed changes nothing at temperature 0, but it tells a second score from the first in a journal."""
    return Question(
        model,
        (Message("user", message),),
        max_tokens=1,
        temperature=0.0,
        seed=seed,
        choices=tuple(digits),
        prefill=JUDGE_PREFILLS["expected"],
    )


def written_question(model: str, message: str, n: int, max_tokens: int, seed: int, schema: str) -> Question:
    """What an endpoint or pool is asked for `Respondent.write`."""
    messages = (Message("user", message),)
    return Question(model, messages, n=n, max_tokens=max_tokens, seed=seed, json_schema=schema)


class AskerRespondent:
    """An endpoint or pool. Failed calls are values here: whatever the cause, there is no answer, and the
    candidate gets no score."""

    asks_policy = False

    def __init__(self, name: str, asked: AskedModel, digits: Sequence[str] = DIGITS) -> None:
        """digits: the grades as texts."""
        self.name = name
        self.meter = Meter()
        self._priced = asked.input_price is not None or asked.output_price is not None
        self._asked = asked
        self._digits = tuple(digits)

    async def grades(self, message: str, seed: int, fresh: bool) -> Sequence[float] | NoAnswer:
        answers = await self._ask(grades_question(self._asked.model, message, seed, self._digits))
        if isinstance(answers, NoAnswer):
            return answers
        found = answers.answers_N[0].choice_logprobs if answers.answers_N else None
        if found is None:
            cause = f"{self.name} reports no log-probabilities: use judge.scorer=sampled"
            return NoAnswer("unparsed", cause)
        return found

    async def write(
        self, message: str, n: int, max_tokens: int, seed: int, schema: str
    ) -> Sequence[str] | NoAnswer:
        answers = await self._ask(written_question(self._asked.model, message, n, max_tokens, seed, schema))
        return answers if isinstance(answers, NoAnswer) else [answer.text for answer in answers.answers_N]

    async def _ask(self, question: Question) -> Answers | NoAnswer:
        with self.meter.question():
            try:
                answers = await self._asked.asker.ask(question)
            except EndpointError as error:
                self.meter.failed()
                return NoAnswer("unreachable", str(error))
            money = (
                answers.prompt_tokens * (self._asked.input_price or 0.0)
                + answers.completion_tokens * (self._asked.output_price or 0.0)
            ) / _TOKENS_PER_PRICE
            self.meter.tokens(
                answers.prompt_tokens, answers.completion_tokens, money if self._priced else None
            )
            return answers
