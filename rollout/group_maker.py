"""From a prompt to a scored group: G candidates, one verdict each, all under the rules of the two contexts.

generate ─► G requests in the sampling context (s, x), each with its own seed
score    ─► inside `gate.judging()`: verdicts, noise probe, gap probe — all under ONE policy version
            (a weight swap waits for a judge batch, which takes about a second; it never waits for generation)
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from dynalign.configs.schema import RunSettings
from dynalign.rollout.busy_clock import BusyClock
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.engine.base import Engine, EngineRequest, EngineResult, request_seed
from dynalign.rollout.judges.base import Judge
from dynalign.rollout.judges.scoring import carries_signal, enough_parsed, noise_std
from dynalign.rollout.judges.value_texts import ValueTexts
from dynalign.rollout.prompts import Prompt
from dynalign.rollout.records import Candidate, Group, Verdict

_NOISE_PAIRS = 64  # the judge's noise is estimated over the last so many candidates that were scored twice


class SwapGate:
    """Many judge batches or one weight swap, never both; a waiting swap goes first."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._judging = 0
        self._swapping = False

    @contextlib.asynccontextmanager
    async def judging(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._swapping)
            self._judging += 1
        try:
            yield
        finally:
            async with self._changed:
                self._judging -= 1
                self._changed.notify_all()

    @contextlib.asynccontextmanager
    async def swapping(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._swapping)
            self._swapping = True
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: self._judging == 0)
            yield
        finally:
            async with self._changed:
                self._swapping = False
                self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class GroupTask:
    """What a lease asks for: the ids that the record carries, and the prompt."""

    lineage: int
    group_id: int
    attempt: int
    epoch: int
    prompt: Prompt
    leased_s: float


@dataclass(frozen=True, slots=True)
class HeldoutAnswer:
    """One held-out completion and its verdict."""

    score: float | None
    completion: str
    completion_tokens: int
    truncated: bool
    version: int


class GroupMaker:
    """Makes groups on one engine. `current_step` tells the newest version loaded into it."""

    def __init__(
        self,
        run: RunSettings,
        worker: str,
        engine: Engine,
        judge: Judge,
        contexts: Contexts,
        texts: ValueTexts,
        current_step: Callable[[], int],
    ) -> None:
        self.run, self.worker = run, worker
        self.engine, self.judge, self.contexts, self.texts = engine, judge, contexts, texts
        self.current_step = current_step
        self.gate = SwapGate()
        self.generating, self.scoring = BusyClock(), BusyClock()
        self._scored_twice: deque[tuple[float | None, float | None]] = deque(maxlen=_NOISE_PAIRS)
        self.completion_tokens = 0
        self.judgements = 0

    async def make(self, draw: GroupTask) -> Group:
        """The scored group of a draw; `withheld_reason` says why it cannot be trained on, if it cannot."""
        settings, prompt = self.run.rollout, draw.prompt.prompt
        sampling_ids = self.contexts.sampling_context(prompt)
        learning_ids = self.contexts.learning_context(prompt)
        with self.generating:
            seeds = (
                request_seed(self.run.seed, draw.group_id, index) for index in range(settings.group_size)
            )
            results_G = await asyncio.gather(*(self._sample(sampling_ids, seed) for seed in seeds))
        generated_s = time.time()
        texts_G = [self.contexts.answer(result.token_ids) for result in results_G]
        async with self.gate.judging():
            with self.scoring:
                judge_version = self.current_step()
                verdicts_G, noise = await self._verdicts(prompt, texts_G, draw.group_id)
                probes_G = await self._probes(sampling_ids, learning_ids, results_G, judge_version)
        candidates_G = tuple(
            Candidate(r.token_ids, r.logprobs_T, text, r.finish_reason, r.spans, verdict, *probe)
            for r, text, verdict, probe in zip(results_G, texts_G, verdicts_G, probes_G, strict=True)
        )
        scores_G = [verdict.score for verdict in verdicts_G]
        return Group(
            run=self.run.name,
            lineage=draw.lineage,
            group_id=draw.group_id,
            attempt=draw.attempt,
            epoch=draw.epoch,
            prompt_id=draw.prompt.id,
            prompt=prompt,
            learning_context_ids=learning_ids,
            candidates_G=candidates_G,
            judge=self.run.judge.function
            if self.run.judge.kind == "function" and self.run.judge.function
            else self.run.judge.kind,
            judge_version=judge_version,
            definition_hash=self.texts.definition_hash,
            rubric_hash=self.texts.rubric_hash,
            worker=self.worker,
            leased_s=draw.leased_s,
            generated_s=generated_s,
            scored_s=time.time(),
            noise_std=noise,
            withheld_reason=withheld_reason(scores_G, noise, [len(text.strip()) for text in texts_G]),
        )

    async def heldout(self, prompt: Prompt, prompted: bool) -> HeldoutAnswer:
        """One completion with a seed fixed for the whole run, judged by the live policy."""
        context = self.contexts.sampling_context if prompted else self.contexts.learning_context
        with self.generating:
            result = await self._sample(
                context(prompt.prompt), request_seed(self.run.seed, "heldout", prompt.id)
            )
        text = self.contexts.answer(result.token_ids)
        async with self.gate.judging():
            with self.scoring:
                version = self.current_step()
                seed = request_seed(self.run.seed, "heldout judge", prompt.id)
                (verdict,) = await self.judge.score(prompt.prompt, [text], seed)
                self.judgements += 1
        return HeldoutAnswer(
            verdict.score, text, len(result.token_ids), result.finish_reason == "length", version
        )

    async def _sample(self, context_ids: tuple[int, ...], seed: int) -> EngineResult:
        request = EngineRequest(context_ids, max_tokens=self.run.rollout.max_completion_tokens, seed=seed)
        result = await self.engine.generate(request)
        self.completion_tokens += len(result.token_ids)
        return result

    async def _verdicts(
        self, prompt: str, texts_G: Sequence[str], group_id: int
    ) -> tuple[list[Verdict], float | None]:
        """One verdict per candidate, a second one for the probed share of them, and this worker's estimate of the judge's noise."""
        verdicts_G = await self.judge.score(prompt, texts_G, request_seed(self.run.seed, "judge", group_id))
        limit = self.run.judge.noise_fraction * 2**31
        probed = [
            index
            for index in range(len(texts_G))
            if request_seed(self.run.seed, "noise", group_id, index) < limit
        ]
        if probed:
            seed = request_seed(self.run.seed, "judge again", group_id)
            again = await self.judge.score(
                prompt, [texts_G[index] for index in reversed(probed)], seed, fresh=True
            )
            for index, second in zip(reversed(probed), again, strict=True):
                self._scored_twice.append((verdicts_G[index].score, second.score))
                verdicts_G[index] = replace(verdicts_G[index], score_again=second.score)
        self.judgements += len(texts_G) + len(probed)
        return verdicts_G, noise_std(*zip(*self._scored_twice, strict=True)) if self._scored_twice else None

    async def _probes(
        self,
        sampling_ids: tuple[int, ...],
        learning_ids: tuple[int, ...],
        results_G: Sequence[EngineResult],
        version: int,
    ) -> list[tuple[tuple[float, ...] | None, float | None, int | None]]:
        """Per candidate (behaviour_logprobs_T, gap_sum_nats, gap_tokens) as configured; Nones where nothing is probed."""
        settings = self.run.rollout

        async def probe(
            index: int, result: EngineResult
        ) -> tuple[tuple[float, ...] | None, float | None, int | None]:
            gap_wanted = index < settings.gap_probes and len(result.token_ids) > 0
            if not (gap_wanted or settings.record_behaviour):
                return None, None, None
            plain_T = await self._prefill(learning_ids, result.token_ids)
            behaviour_T = plain_T if settings.record_behaviour else None
            if not gap_wanted:
                return behaviour_T, None, None
            # The sampling log-probabilities serve where every token was sampled by the very version that scores.
            same = all(span.version == version for span in result.spans)
            prompted_T = result.logprobs_T if same else await self._prefill(sampling_ids, result.token_ids)
            return behaviour_T, sum(prompted_T) - sum(plain_T), len(plain_T)

        return list(await asyncio.gather(*(probe(index, result) for index, result in enumerate(results_G))))

    async def _prefill(self, context_ids: tuple[int, ...], token_ids: tuple[int, ...]) -> tuple[float, ...]:
        result = await self.engine.generate(
            EngineRequest(context_ids + token_ids, prefill_from=len(context_ids))
        )
        return result.prefill_logprobs_T or ()


def withheld_reason(
    scores_G: Sequence[float | None], noise: float | None, lengths_G: Sequence[int]
) -> str | None:
    """Why a group cannot be trained on: nothing was answered, too few verdicts, or no spread beyond the judge's noise."""
    if not any(lengths_G):
        return "empty"
    if not enough_parsed(scores_G):
        return "unparsed"
    return None if carries_signal(scores_G, noise) else "low_signal"
