"""A rollout worker: one engine that generates and scores groups, and takes new weights while sequences are in
flight.

    lease loop    starts one task per lease, and renews the leases held (`lease_loop.py`)
    task          make ─► deliver
                  waits for: the lease's version in the engine    unblocked by: the weight loop
                  bounded by: deadlines.group_s, which ends the worker
    weight loop   `weight_loader.py`: into the engine, between two judge batches
                  waits for: a newer version (`version_news.py`)  unblocked by: the coordinator's commit

No loop waits for another worker. The first error ends all loops, and `serve` raises it; the supervision
decides what follows. While a ledger is replaced, calls to it take longer and do not fail (`LedgerLink`).
"""

import asyncio
import gc
import os
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from ray.util import metrics

from dynalign.actors import logs
from dynalign.actors.ledger.ledger_link import LedgerLink
from dynalign.actors.worker.lease_loop import LeaseLoop
from dynalign.actors.worker.protocol import WorkerStats
from dynalign.actors.worker.version_news import VersionNews
from dynalign.actors.worker.weight_loader import WeightLoader
from dynalign.configs.errors import DeadlineExceeded, PublisherGone
from dynalign.configs.schema import RunSettings
from dynalign.rollout.contexts import Contexts, load_contexts
from dynalign.rollout.engine.base import Engine
from dynalign.rollout.group_maker import GroupMaker, GroupTask
from dynalign.rollout.judges.base import context_tokens
from dynalign.rollout.judges.make import NO_ASKERS, make_judge, make_second_judges
from dynalign.rollout.judges.respondents import Askers
from dynalign.rollout.judges.value_texts import ValueTexts
from dynalign.rollout.ledger.evaluation_leases import EvaluationLease, EvaluationResult
from dynalign.rollout.ledger.kinds import AnyLease
from dynalign.rollout.ledger.probe_leases import ProbeLease, ProbeResult
from dynalign.rollout.ledger.values import Lease, WithheldScores
from dynalign.rollout.prompts import PromptSet
from dynalign.rollout.records import Group
from dynalign.rollout.versioned_asker import VersionedAsker
from dynalign.rollout.weights.version import WeightVersion, travelling_adapter, version_label
from dynalign.run_folder import layout


@dataclass(frozen=True)
class WorkerSpec:
    """The arguments of one worker: WorkerSpec("rollout-0", run, "models/tiny", "runs/q", "q-ledger",
    lineage=3, cores=(2, 3), texts=…)."""

    name: str
    """The worker's name, which no other worker of the run has."""
    run: RunSettings
    """The settings of the run."""
    model_folder: str
    """Path of the initial policy's model folder on the worker's node."""
    run_folder: str
    """Path of the run folder, the same on every node."""
    ledger: str
    """Ray name of the ledger."""
    lineage: int
    """The lineage at the worker's start. A worker outlives a rollback."""
    cores: tuple[int, ...] | None
    """Processor cores that it may use; None for all."""
    texts: ValueTexts
    """The value's texts, as the driver read them: `judge.values` need not exist on the worker's node."""
    model_hash: str = ""
    """Hash of the initial model's content, for the records."""


class RolloutWorker:
    """The actor. Call `start` once, then `serve`, which returns after `stop`; `stats`, `sleep` and `wake` at
    any time between."""

    def __init__(self, spec: WorkerSpec, prompts: PromptSet, askers: Askers = NO_ASKERS) -> None:
        """askers: the endpoints and pools that the judges may ask, by name."""
        if spec.cores:
            os.sched_setaffinity(0, spec.cores)  # before any library counts the cores
        self._spec = spec
        self._prompts = prompts
        self._askers = askers
        self._ledger = LedgerLink(spec.ledger, spec.run.deadlines.start_s)
        slots = spec.run.rollout.groups_in_flight
        spool_folder = Path(spec.run_folder) / layout.SPOOL
        self._news = VersionNews(spec.name, self._ledger)
        self._leases = LeaseLoop(
            spec.name, self._ledger, slots, spool_folder, spec.run.deadlines, self._work, self._news
        )
        self._held = self._news.known
        self._loaded = asyncio.Condition()
        self._sync_s = 0.0
        self._sync_pause_s = 0.0
        self._syncs = 0

    async def here(self) -> tuple[str, int, float]:
        """Host, process id and when that process began (Unix seconds).

        An answer means that the cluster had room for the worker.
        """
        return os.uname().nodename, os.getpid(), psutil.Process().create_time()

    async def start(self) -> None:
        """Loads the initial policy (step 0); a resumed run's version is pulled before the first lease is
        worked on."""
        spec = self._spec
        run = spec.run
        logs.configure(run, spec.name, lambda: version_label(*self._held))
        texts = spec.texts
        contexts = await asyncio.to_thread(
            load_contexts, Path(spec.model_folder), texts.generation_system, run.date or ""
        )
        context_limit = context_tokens(contexts, texts, run)
        self._engine = await _start_engine(spec, contexts, context_limit)
        asked = (run.judge, context_limit, self._askers, travelling_adapter(run) is not None)
        judge = make_judge(self._engine, contexts, texts, *asked)
        seconds = make_second_judges(self._engine, contexts, texts, *asked)
        self._maker = GroupMaker(
            run,
            spec.name,
            self._engine,
            judge,
            contexts,
            texts,
            lambda: self._held[1],
            seconds,
            spec.model_hash,
        )
        self._asker = VersionedAsker(self._engine, contexts, context_limit)
        gc.freeze()  # a collection that walks through all objects of the libraries would stop every loop here
        self._loader = WeightLoader(
            self._engine, self._maker.gate, spec.name, run.rollout.tensor_parallel, run.weights.deadline_s
        )

    async def serve(self) -> None:
        """Works until `stop`. Raises the first error of any loop. Every task has ended when it returns."""
        try:
            async with asyncio.TaskGroup() as group:
                weights = [group.create_task(loop) for loop in (self._weight_loop(), self._news.poll())]
                await self._leases.run(group)
                for loop in weights:
                    loop.cancel()
        except BaseExceptionGroup as errors:
            raise _first(errors) from errors
        finally:
            await self._engine.close()

    async def stop(self) -> None:
        """Takes no more leases; groups in flight are finished and reported."""
        self._leases.stop()

    async def stats(self) -> WorkerStats:
        """Totals since the start, and what the worker is doing now."""
        maker = self._maker
        return WorkerStats(
            name=self._spec.name,
            version=self._held[1],
            groups_in_flight=self._leases.in_flight,
            completion_tokens_total=maker.completion_tokens,
            judgements_total=maker.judgements,
            judge_failures_total=maker.judge_failures,
            judge_failure=maker.judge_failure,
            judges=maker.judge_costs(),
            generate_s=maker.generating.total_s,
            score_s=maker.scoring.total_s,
            idle_s=self._leases.idle_s,
            weight_sync_s=self._sync_s,
            weight_sync_pause_s=self._sync_pause_s,
            weight_syncs=self._syncs,
            weight_fallbacks=self._loader.fallbacks,
        )

    async def sleep(self) -> None:
        """Shared placement: the learner takes the device."""
        await self._engine.sleep()

    async def wake(self) -> None:
        """Shared placement: the device is back."""
        await self._engine.wake()

    async def _work(self, lease: AnyLease) -> None:
        match lease:
            case Lease():
                await self._make(lease)
            case EvaluationLease():
                await self._evaluate(lease)
            case ProbeLease():
                await self._probe(lease)

    async def _make(self, lease: Lease) -> None:
        await self._holds((lease.lineage, lease.version))
        prompt = lease.added or self._prompts.train[lease.prompt_index]
        draw = GroupTask(lease.lineage, lease.group_id, lease.attempt, lease.epoch, prompt, time.time())
        made = await self._maker.make(draw)
        payload = await asyncio.to_thread(_encode, made)
        versions = (made.version_min, made.version_max)
        reason = made.withheld_reason
        said = None if reason is None else WithheldScores(made.prompt_id, made.scores_G, made.noise_std)
        tokens = sum(len(each.token_ids_T) for each in made.candidates_G)
        await self._leases.deliver(lease, payload, versions, reason, said, tokens)

    async def _evaluate(self, lease: EvaluationLease) -> None:
        await self._holds((lease.lineage, lease.version))
        answer = await self._maker.heldout(self._prompts.heldout[lease.prompt_index], lease.prompted)
        await self._ledger.report_evaluation(
            self._spec.name,
            EvaluationResult(
                lease.key,
                answer.score,
                answer.completion_tokens,
                completion=answer.completion,
                truncated=answer.truncated,
                prompt_tokens=answer.prompt_tokens,
                version_min=answer.version_min,
                version_max=answer.version_max,
            ),
        )

    async def _probe(self, lease: ProbeLease) -> None:
        await self._holds((lease.lineage, lease.version))
        answers, versions = await self._asker.ask(lease.question, self._held[1])
        await self._ledger.report_probe(self._spec.name, ProbeResult(lease.key, answers, *versions))

    async def _holds(self, version: tuple[int, int]) -> None:
        """Waits until the engine holds `version`, a (lineage, step), or a newer one."""
        deadline_s = self._spec.run.weights.deadline_s
        try:
            async with asyncio.timeout(deadline_s), self._loaded:
                await self._loaded.wait_for(lambda: self._held >= version)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"weight version {version} in {self._spec.name} (it holds {self._held})", deadline_s
            ) from error

    async def _weight_loop(self) -> None:
        """If a version's publisher has died, waits for that of its successor, as long as one load may
        take."""
        lost_s: float | None = None
        while True:
            try:
                await self._load(await self._news.next(self._held))
                lost_s = None
            except PublisherGone:
                lost_s = lost_s or time.monotonic()
                if time.monotonic() - lost_s > self._spec.run.weights.deadline_s:
                    raise
                await asyncio.sleep(1.0)

    async def _load(self, version: WeightVersion) -> None:
        started_s = time.monotonic()
        if version.manifest:
            pause_s = await self._loader.load(version, lambda: self._holds_now(version))
            self._sync_s += time.monotonic() - started_s
            self._sync_pause_s += pause_s
            self._syncs += 1
        else:
            self._holds_now(version)
        async with self._loaded:
            self._loaded.notify_all()

    def _holds_now(self, version: WeightVersion) -> None:
        self._held = (version.lineage, version.step)


async def _start_engine(spec: WorkerSpec, contexts: Contexts, context_limit: int) -> Engine:
    run = spec.run
    label = version_label(spec.lineage, 0)
    if run.rollout.engine == "deterministic":
        from dynalign.rollout.engine.deterministic import DeterministicEngine

        size = len(contexts.tokenizer)
        return DeterministicEngine(range(size // 2, size), contexts.tokenizer.eos_token_id, label)
    from dynalign.rollout.engine.vllm import VllmEngine

    adapter = travelling_adapter(run)
    name = f"{run.name}/{spec.name}"
    return await VllmEngine.start(
        spec.model_folder, run.rollout, context_limit, label, run.seed, adapter, name, metrics
    )


def _encode(group: Group) -> bytes:
    from dynalign.rollout.arrow_schema import encode, to_batch

    return encode([to_batch(group)])


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
