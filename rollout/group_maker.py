"""From a prompt to a scored group: G candidates and one verdict for each.

generate   G requests in the sampling context (s, x), each with its own seed
score      verdicts, noise probe and gap probe. Where the policy judges, inside `gate.passing()`: all under
           ONE policy version (a weight swap waits for such a batch, which takes about a second; it never
           waits for generation, nor for a judge that is somebody else)
seconds    judges that may lower the scores, and those that are asked beside on a sample of the groups
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dynalign.configs.schema import RunSettings
from dynalign.rollout.busy_clock import BusyClock
from dynalign.rollout.contexts import Contexts
from dynalign.rollout.engine.base import Engine, EngineRequest, EngineResult, request_seed
from dynalign.rollout.engine.swap_gate import SwapGate
from dynalign.rollout.judges.base import RunJudge
from dynalign.rollout.judges.committee import merged_costs, opinions_of
from dynalign.rollout.judges.make import NO_SECONDS, SecondJudges
from dynalign.rollout.judges.scoring import noise_std
from dynalign.rollout.judges.second_opinions import with_probe, with_vetoes
from dynalign.rollout.judges.value_texts import ValueTexts
from dynalign.rollout.ledger.values import JUDGE_UNREACHABLE
from dynalign.rollout.prompts import Prompt
from dynalign.rollout.records import Candidate, Group, ScoringRules, Verdict
from dynalign.rollout.withheld import first_failed_call, withheld_reason
from dynalign.run_folder.run_status import JudgeCost

logger = logging.getLogger(__name__)

# The judge's noise is estimated over this many candidates, the last ones that were scored twice.
_NOISE_PAIRS = 64
# `request_seed` has 31 bits.
_SEEDS = 2**31

_Probe = tuple[tuple[float, ...] | None, float | None, int | None]
"""Of one candidate: behaviour_logprobs_T, gap_sum_nats, gap_tokens."""


@dataclass(frozen=True, slots=True)
class GroupTask:
    """What a lease asks for: one group of one prompt.

    Example:

        GroupTask(1, group_id=97, attempt=1, epoch=0, prompt=Prompt("a", "…", "", "train"), leased_s=100.0)
    """

    lineage: int
    """The run's history that the lease belongs to."""
    group_id: int
    """The draw's number since the start of the run."""
    attempt: int
    """Number of the lease of this draw, from 1."""
    epoch: int
    """Complete passes over the prompts before this draw."""
    prompt: Prompt
    """The prompt that was drawn."""
    leased_s: float
    """When the lease was granted, in Unix seconds."""


@dataclass(frozen=True, slots=True)
class HeldoutAnswer:
    """One held-out completion and its score.

    Example:

        HeldoutAnswer(2.7, "By days.", completion_tokens=4, truncated=False, prompt_tokens=31, version_min=12,
            version_max=12)
    """

    score: float | None
    """Points, 0 to 5; None if the verdict was unparsed."""
    completion: str
    """The answer's text, without thinking and special tokens."""
    completion_tokens: int
    """Tokens that were sampled, thinking included."""
    truncated: bool
    """Whether the completion was cut off at the limit."""
    prompt_tokens: int
    """Tokens of the context that was answered."""
    version_min: int
    """Oldest version, as a learner step, of the tokens, and of the verdict where the policy judges."""
    version_max: int
    """Newest version of them."""


class GroupMaker:
    """Makes groups on one engine, several at once."""

    def __init__(
        self,
        run: RunSettings,
        worker: str,
        engine: Engine,
        judge: RunJudge,
        contexts: Contexts,
        texts: ValueTexts,
        current_step: Callable[[], int],
        seconds: SecondJudges = NO_SECONDS,
        model_hash: str = "",
    ) -> None:
        """worker: its name, for the records. current_step: the step of the version in the engine now.
        seconds: who scores beside the judge. model_hash: of the initial model, for the records."""
        self.run = run
        self.worker = worker
        self.engine = engine
        self.judge = judge
        self.seconds = seconds
        self.contexts = contexts
        self.texts = texts
        self.current_step = current_step
        self.model_hash = model_hash
        self._kept = run.algorithm.system_prompt == "kept"
        self.gate = SwapGate()
        self.generating = BusyClock()
        self.scoring = BusyClock()
        self._scored_twice: deque[tuple[float | None, float | None]] = deque(maxlen=_NOISE_PAIRS)
        self.completion_tokens = 0
        """Tokens sampled since the start."""
        self.judgements = 0
        """Verdicts since the start."""
        self.judge_failures = 0
        """Of these, those for which `judge.function` raised or returned no score."""
        self.judge_failure = ""
        """Why, the last time."""

    async def make(self, task: GroupTask) -> Group:
        """The scored group of a task; its `withheld_reason` is set if it cannot be trained on.

        Raises EngineError when the engine fails."""
        prompt = task.prompt.prompt
        sampling_ids = self.contexts.sampling_context(prompt)
        plain_ids = self.contexts.learning_context(prompt)
        with self.generating:
            size = self.run.rollout.group_size
            seeds = (request_seed(self.run.seed, task.group_id, index) for index in range(size))
            results_G = await asyncio.gather(*(self._sample(sampling_ids, seed) for seed in seeds))
        generated_s = time.time()
        texts_G = [self.contexts.answer(result.token_ids) for result in results_G]
        async with contextlib.AsyncExitStack() as held:
            if self.judge.asks_policy:
                await held.enter_async_context(self.gate.passing())
            with self.scoring:
                verdicts_G, noise = await self._verdicts(prompt, texts_G, task.group_id)
            if not self.judge.asks_policy:
                await held.enter_async_context(self.gate.passing())
            with self.scoring:
                judge_version = self.current_step()
                probes_G = await self._probes(
                    task.group_id, sampling_ids, plain_ids, results_G, judge_version
                )
        with self.scoring:
            verdicts_G = await self._vetoed(prompt, texts_G, verdicts_G, ("veto", task.group_id))
            verdicts_G = await self._probed(prompt, texts_G, verdicts_G, task.group_id)
        candidates_G = tuple(
            Candidate(r.token_ids, r.logprobs_T, text, r.finish_reason, r.spans, verdict, *probe)
            for r, text, verdict, probe in zip(results_G, texts_G, verdicts_G, probes_G, strict=True)
        )
        reason = withheld_reason(verdicts_G, noise, [len(text.strip()) for text in texts_G])
        if reason == JUDGE_UNREACHABLE:
            self.judge_failure = first_failed_call(verdicts_G) or self.judge_failure
            logger.warning("group %d has too few scores: %s", task.group_id, self.judge_failure)
        return Group(
            run=self.run.name,
            lineage=task.lineage,
            group_id=task.group_id,
            attempt=task.attempt,
            epoch=task.epoch,
            prompt_id=task.prompt.id,
            prompt=prompt,
            learning_context_ids=sampling_ids if self._kept else plain_ids,
            candidates_G=candidates_G,
            judge=self.judge.name,
            judge_version=judge_version,
            definition_hash=self.texts.definition_hash,
            rubric_hash=self.texts.rubric_hash,
            scoring=ScoringRules.of(self.run.judge),
            model_hash=self.model_hash,
            worker=self.worker,
            leased_s=task.leased_s,
            generated_s=generated_s,
            scored_s=time.time(),
            noise_std=noise,
            withheld_reason=reason,
        )

    async def heldout(self, prompt: Prompt, prompted: bool) -> HeldoutAnswer:
        """One completion with a seed that is fixed for the whole run, scored by the run's judge.

        prompted: with the system prompt s, or without."""
        context = self.contexts.sampling_context if prompted else self.contexts.learning_context
        context_ids = context(prompt.prompt)
        with self.generating:
            seed = request_seed(self.run.seed, "heldout", prompt.id)
            result = await self._sample(context_ids, seed)
        text = self.contexts.answer(result.token_ids)
        seed = request_seed(self.run.seed, "heldout judge", prompt.id)
        with self.scoring:
            version, verdicts = await self._by(self.judge, prompt.prompt, [text], seed)
            (verdict,) = await self._vetoed(prompt.prompt, [text], verdicts, ("heldout veto", prompt.id))
        versions = {span.version for span in result.spans}
        if self.judge.asks_policy or not versions:
            versions.add(version)
        tokens = len(result.token_ids)
        cut = result.finish_reason == "length"
        span = (min(versions), max(versions))
        return HeldoutAnswer(verdict.score, text, tokens, cut, len(context_ids), *span)

    async def _sample(self, context_ids: tuple[int, ...], seed: int) -> EngineResult:
        most = self.run.rollout.max_completion_tokens
        request = EngineRequest(context_ids, max_tokens=most, seed=seed, stop_ids=self.contexts.stop_ids)
        result = await self.engine.generate(request)
        self.completion_tokens += len(result.token_ids)
        return result

    async def _verdicts(
        self, prompt: str, texts_G: Sequence[str], group_id: int
    ) -> tuple[list[Verdict], float | None]:
        """One verdict per candidate, and this worker's estimate of the judge's noise in points.

        A share `judge.noise_fraction` of the candidates is scored twice, in another order and without
        cached key-values; of the groups, where the judge compares candidates."""
        run_seed = self.run.seed
        verdicts_G = await self.judge.score(prompt, texts_G, request_seed(run_seed, "judge", group_id))
        self._count_failures(verdicts_G)
        limit = self.run.judge.noise_fraction * _SEEDS
        indices = list(reversed(range(len(texts_G))))
        probed = [index for index in indices if request_seed(run_seed, "noise", group_id, index) < limit]
        if self.judge.compares:
            probed = indices if request_seed(run_seed, "noise", group_id) < limit else []
        if probed:
            texts = [texts_G[index] for index in probed]
            seed = request_seed(run_seed, "judge again", group_id)
            again = await self.judge.score(prompt, texts, seed, fresh=True)
            for index, second in zip(probed, again, strict=True):
                self._scored_twice.append((verdicts_G[index].score, second.score))
                first = verdicts_G[index]
                opinions = (*first.opinions, *opinions_of(self.judge.name, second, "again"))
                verdicts_G[index] = replace(first, score_again=second.score, opinions=opinions)
        self.judgements += len(texts_G) + len(probed)
        return verdicts_G, noise_std(*zip(*self._scored_twice, strict=True)) if self._scored_twice else None

    def _count_failures(self, verdicts: Sequence[Verdict]) -> None:
        """A function's verdict is without a score only if the function is at fault, and then says why."""
        if self.run.judge.kind == "function":
            causes = [verdict.text or "" for verdict in verdicts if verdict.score is None]
            self.judge_failures += len(causes)
            self.judge_failure = causes[-1] if causes else self.judge_failure

    async def _by(
        self, judge: RunJudge, prompt: str, texts: Sequence[str], seed: int
    ) -> tuple[int, list[Verdict]]:
        """The step of the policy's version, and a judge's verdicts, all under that version."""
        held: contextlib.AbstractAsyncContextManager[None] = contextlib.nullcontext()
        if judge.asks_policy:
            held = self.gate.passing()
        async with held:
            step = self.current_step()
            verdicts = await judge.score(prompt, texts, seed)
        self.judgements += len(texts)
        if judge is self.judge:
            self._count_failures(verdicts)
        return step, verdicts

    async def _vetoed(
        self, prompt: str, texts_G: Sequence[str], verdicts_G: Sequence[Verdict], draw: tuple[str, int | str]
    ) -> list[Verdict]:
        """The verdicts under the vetoes of the second judges, who see only candidates with a score.

        draw: what the seeds are made of."""
        scored = [index for index, verdict in enumerate(verdicts_G) if verdict.status == "parsed"]
        found = list(verdicts_G)
        if not scored or not self.seconds.vetoes:
            return found
        seed = request_seed(self.run.seed, *draw)
        texts = [texts_G[index] for index in scored]
        jobs = (self._by(veto, prompt, texts, seed) for veto in self.seconds.vetoes)
        by_veto = [verdicts for _, verdicts in await asyncio.gather(*jobs)]
        names = [veto.name for veto in self.seconds.vetoes]
        for index, *vetoes in zip(scored, *by_veto, strict=True):
            said = dict(zip(names, vetoes, strict=True))
            found[index] = with_vetoes(self.judge.name, found[index], said)
        return found

    async def _probed(
        self, prompt: str, texts_G: Sequence[str], verdicts_G: Sequence[Verdict], group_id: int
    ) -> list[Verdict]:
        """The verdicts with the opinions of the judges that score a sample of the groups beside."""
        sampled = request_seed(self.run.seed, "probe", group_id) < self.seconds.probe_fraction * _SEEDS
        found = list(verdicts_G)
        if not sampled:
            return found
        seed = request_seed(self.run.seed, "probe judge", group_id)
        jobs = (self._by(probe, prompt, texts_G, seed) for probe in self.seconds.probes)
        for probe, (_, verdicts) in zip(self.seconds.probes, await asyncio.gather(*jobs), strict=True):
            pairs = zip(found, verdicts, strict=True)
            found = [with_probe(verdict, probe.name, beside) for verdict, beside in pairs]
        return found

    def judge_costs(self) -> dict[str, JudgeCost]:
        """Who was asked for scores, by name → what that has cost since the start."""
        return merged_costs([self.judge, *self.seconds.vetoes, *self.seconds.probes])

    async def _probes(
        self,
        group_id: int,
        sampling_ids: tuple[int, ...],
        plain_ids: tuple[int, ...],
        results_G: Sequence[EngineResult],
        version: int,
    ) -> list[_Probe]:
        """Per candidate (behaviour_logprobs_T, gap_sum_nats, gap_tokens), each None where it is not wanted.

        version: the one that scores. Each prefill is one more request to the engine."""
        settings = self.run.rollout
        limit = settings.mismatch_fraction * _SEEDS

        async def prompted(result: EngineResult) -> tuple[float, ...]:
            # Where the version that scores sampled every token, the sampling log-probabilities are at hand.
            same = all(span.version == version for span in result.spans)
            return result.logprobs_T if same else await self._prefill(sampling_ids, result.token_ids)

        async def probe(index: int, result: EngineResult) -> _Probe:
            gap_wanted = index < settings.gap_probes and len(result.token_ids) > 0
            compared = request_seed(self.run.seed, "mismatch", group_id, index) < limit
            if not (gap_wanted or compared or settings.record_behaviour):
                return None, None, None
            if self._kept and not gap_wanted:
                return await prompted(result), None, None
            plain_T = await self._prefill(plain_ids, result.token_ids)
            if not gap_wanted:
                return plain_T, None, None
            prompted_T = await prompted(result)
            return prompted_T if self._kept else plain_T, sum(prompted_T) - sum(plain_T), len(plain_T)

        return list(await asyncio.gather(*(probe(index, result) for index, result in enumerate(results_G))))

    async def _prefill(self, context_ids: tuple[int, ...], token_ids: tuple[int, ...]) -> tuple[float, ...]:
        """Log-probability in nats of each token after the context."""
        request = EngineRequest(context_ids + token_ids, prefill_from=len(context_ids))
        result = await self.engine.generate(request)
        return result.prefill_logprobs_T or ()
