"""Questions to one of this project's own engines with fixed weights: messages in, answers out.

    question ─► chat template ─► token ids ─► verdicts, for the log-probabilities of its choices
                                     └──────► n requests ─► n texts

Every text of a question is data: whatever it spells, the control tokens of the context are those that the
template writes (`contexts.py`). A question with a prefill, choices or a schema begins its answer after an
empty thought, so that the first token belongs to the answer. Any other may be thought about first: that
counts against `max_tokens`, and is taken off the answer, as it is of a candidate.

The temperature is the question's own, since its answers are not trained on. What is trained on is sampled in
`group_maker.py`, which never sets one: the importance ratio needs samples at temperature 1.
"""

import asyncio
import json
import random
from typing import Protocol

from dynalign.configs.errors import EndpointRefused, RequestRefused, UserError
from dynalign.endpoint.base import Answer, Answers, Question
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.engine.base import MOST_CHOICES, EngineRequest, EngineResult, request_seed


class Generating(Protocol):
    """What is asked of an engine here."""

    async def generate(self, request: EngineRequest) -> EngineResult:
        """As `Engine.generate`."""
        ...


class EngineAsker:
    """An `Asker` over one engine, without journal and budget: its answers cost nothing but time.

    Besides what an `Asker` raises, `ask` raises EngineError when the engine fails, and DeadlineExceeded when
    it does not answer. It is not used again then, and the question may be asked elsewhere.
    """

    def __init__(self, name: str, engine: Generating, contexts: Contexts, context_limit: int) -> None:
        """name: the model's, as answers report it. context_limit: tokens that the engine holds per sequence,
        the answer included."""
        self._name = name
        self._engine = engine
        self._contexts = contexts
        self._context_limit = context_limit

    async def ask(self, question: Question) -> Answers:
        """The answers. Raises EndpointRefused for a question that this engine cannot take.

        One greedy token with choices is the likeliest of them, and needs no second request."""
        choice_ids = self._choice_ids(question)
        begun = bool(question.prefill or choice_ids or question.json_schema is not None)
        token_ids = self._context(question, begun)
        read = self._contexts.text if begun else self._contexts.answer
        try:
            logprobs = await self._logprobs(token_ids, choice_ids)
            if logprobs is not None and question.max_tokens == 1 and question.temperature == 0.0:
                text = question.choices[logprobs.index(max(logprobs))]
                answers_N = (Answer(text, "length", logprobs),) * question.n
                return Answers(answers_N, self._name, len(token_ids), question.n)
            requests = self._requests(question, token_ids)
            results_N = await asyncio.gather(*map(self._engine.generate, requests))
        except RequestRefused as error:
            raise self._refused(str(error)) from error
        return Answers(
            tuple(Answer(read(each.token_ids), each.finish_reason, logprobs) for each in results_N),
            self._name,
            len(token_ids),
            sum(len(each.token_ids) for each in results_N),
        )

    def _choice_ids(self, question: Question) -> tuple[int, ...]:
        ids = self._contexts.choice_ids(question.choices, question.prefill) if question.choices else ()
        if ids is None:
            after = f" after {question.prefill!r}" if question.prefill else ""
            raise self._refused(f"its tokenizer does not encode each choice{after} as one token of its own")
        return ids

    def _context(self, question: Question, begun: bool) -> tuple[int, ...]:
        """begun: whether the answer begins at once."""
        if question.json_schema is not None and not _is_object(question.json_schema):
            raise self._refused("the JSON schema is no JSON object")
        try:
            token_ids = self._contexts.chat_context(question.messages, question.prefill if begun else None)
        except UserError as error:
            raise self._refused(str(error)) from error
        if len(token_ids) + question.max_tokens > self._context_limit:
            asked = f"{len(token_ids):,} tokens, and {question.max_tokens:,} for the answer"
            raise self._refused(f"the question has {asked}; the engine holds {self._context_limit:,}")
        return token_ids

    async def _logprobs(
        self, token_ids: tuple[int, ...], choice_ids: tuple[int, ...]
    ) -> tuple[float, ...] | None:
        """Log-probability in nats of each choice as the first token of the answer; None without choices."""
        begins = range(0, len(choice_ids), MOST_CHOICES)
        parts = [choice_ids[begin : begin + MOST_CHOICES] for begin in begins]
        asked = [self._engine.generate(EngineRequest(token_ids, choice_ids=part)) for part in parts]
        results = await asyncio.gather(*asked)
        return tuple(each for result in results for each in result.choice_logprobs or ()) or None

    def _requests(self, question: Question, token_ids: tuple[int, ...]) -> list[EngineRequest]:
        """One per answer, each with a seed of its own."""
        seed = random.getrandbits(31) if question.seed is None else question.seed
        return [
            EngineRequest(
                token_ids,
                max_tokens=question.max_tokens,
                seed=request_seed(seed, index),
                json_schema=question.json_schema,
                stop_ids=self._contexts.stop_ids,
                temperature=question.temperature,
            )
            for index in range(question.n)
        ]

    def _refused(self, cause: str) -> EndpointRefused:
        return EndpointRefused(self._name, cause)


def _is_object(schema: str) -> bool:
    try:
        return isinstance(json.loads(schema), dict)
    except (ValueError, RecursionError):  # json reports 100,000 opening brackets as a RecursionError
        return False
