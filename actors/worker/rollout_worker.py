"""A rollout worker: one engine that generates and scores groups, and takes new weights while sequences are
in flight.

    lease loop    starts one group task per lease, and renews the leases held (`lease_loop`)
    group task    waits for: the lease's version in the engine   unblocked by: the weight loop
                  make ─► deliver                                ends the worker when it takes longer than
                  deadlines.group_s
    weight loop   waits for: a newer version (`version_news.py`)  unblocked by: the coordinator's commit
                  `weight_loader.py`: into the engine, between two judge batches

No loop waits for another worker. The first error ends all loops, and `serve` raises it: the supervision
decides what follows. A ledger that is replaced meanwhile only makes the calls to it take longer
(`LedgerLink`).
"""

import asyncio
import gc
import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import psutil
from ray.util import metrics

from dynalign.actors import logs
from dynalign.actors.ledger.ledger_link import LedgerLink
from dynalign.actors.worker.lease_loop import AnyLease, LeaseLoop
from dynalign.actors.worker.version_news import VersionNews
from dynalign.actors.worker.weight_loader import WeightLoader
from dynalign.configs.errors import DeadlineExceeded, PublisherGone
from dynalign.configs.schema import RunSettings
from dynalign.rollout.contexts import Contexts, load_contexts
from dynalign.rollout.engine.base import Engine
from dynalign.rollout.group_maker import GroupMaker, GroupTask
from dynalign.rollout.judges.base import context_tokens
from dynalign.rollout.judges.make import make_judge
from dynalign.rollout.judges.value_texts import load_value_texts
from dynalign.rollout.ledger.evaluation_leases import EvaluationLease, EvaluationResult
from dynalign.rollout.ledger.values import Lease, ScoredGroup
from dynalign.rollout.prompts import PromptSet
from dynalign.rollout.records import Group
from dynalign.rollout.weights.version import WeightVersion, travelling_adapter, version_label
from dynalign.run_folder import layout
from dynalign.run_folder.spool import SpoolEntry


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker is told once: its name, the run, where its model and run folder are, the ledger's name,
    the lineage at its start, and the cores it may use."""

    name: str
    run: RunSettings
    model_folder: str
    run_folder: str
    ledger: str
    lineage: int
    cores: tuple[int, ...] | None


class RolloutWorker:
    """The actor. `start` once, then `serve` until `stop`; `stats`, `sleep` and `wake` at any time in
    between."""

    def __init__(self, spec: WorkerSpec, prompts: PromptSet) -> None:
        if spec.cores:
            os.sched_setaffinity(0, spec.cores)  # before any library counts the cores
        self._spec, self._prompts = spec, prompts
        self._ledger = LedgerLink(spec.ledger, spec.run.deadlines.start_s)
        places, spool_folder = spec.run.rollout.groups_in_flight, Path(spec.run_folder) / layout.SPOOL
        self._news = VersionNews(spec.name, self._ledger)
        self._leases = LeaseLoop(
            spec.name, self._ledger, places, spool_folder, spec.run.deadlines, self._work, self._news
        )
        self._held = self._news.known
        self._loaded = asyncio.Condition()
        self._sync = {"weight_sync_s": 0.0, "weight_sync_pause_s": 0.0, "weight_syncs": 0}

    async def here(self) -> tuple[str, int, float]:
        """Host, process id and when that process began (Unix seconds): the cluster had room for this
        worker."""
        return os.uname().nodename, os.getpid(), psutil.Process().create_time()

    async def start(self) -> None:
        """Loads the initial policy (step 0); a resumed run's version is pulled before the first lease is
        worked on."""
        spec, run = self._spec, self._spec.run
        logs.configure(run, spec.name, lambda: version_label(*self._held))
        texts = load_value_texts(
            Path(run.judge.values) if run.judge.values else None, run.judge.rubric, run.judge.scorer
        )
        contexts = await asyncio.to_thread(
            load_contexts, Path(spec.model_folder), texts.generation_system, run.date or ""
        )
        context_limit = context_tokens(contexts, texts, run)
        self._engine = await _start_engine(spec, contexts, context_limit)
        judge = make_judge(self._engine, contexts, texts, run.judge, context_limit)
        self._maker = GroupMaker(run, spec.name, self._engine, judge, contexts, texts, lambda: self._held[1])
        gc.freeze()  # libraries: a collection would walk through all of them, and stop lease loop and engine client
        self._loader = WeightLoader(
            self._engine, self._maker.gate, spec.name, run.rollout.tensor_parallel, run.weights.deadline_s
        )

    async def serve(self) -> None:
        """Works until `stop`. Raises the first error of any loop; every task has ended when it returns."""
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

    async def stats(self) -> dict[str, Any]:
        """Totals since the start, for the coordinator's per-step differences, and what the worker is doing
        now."""
        maker = self._maker
        return {
            "name": self._spec.name,
            "version": self._held[1],
            "groups_in_flight": self._leases.in_flight,
            "completion_tokens_total": maker.completion_tokens,
            "judgements_total": maker.judgements,
            "generate_s": maker.generating.total_s,
            "score_s": maker.scoring.total_s,
            "idle_s": self._leases.idle_s,
            **self._sync,
            "weight_fallbacks": self._loader.fallbacks,
        }

    async def sleep(self) -> None:
        """Shared placement: the learner takes the device."""
        await self._engine.sleep()

    async def wake(self) -> None:
        """Shared placement: the device is back."""
        await self._engine.wake()

    async def _work(self, lease: AnyLease) -> None:
        if isinstance(lease, EvaluationLease):
            await self._evaluate(lease)
        else:
            await self._make(lease)

    async def _make(self, lease: Lease) -> None:
        await self._holds((lease.lineage, lease.version))
        prompt = self._prompts.train[lease.prompt_index]
        draw = GroupTask(lease.lineage, lease.group_id, lease.attempt, lease.epoch, prompt, time.time())
        made = await self._maker.make(draw)
        payload = await asyncio.to_thread(_encode, made)
        await self._leases.deliver(lease, payload, lambda entry: _scored(lease, made, entry))

    async def _evaluate(self, lease: EvaluationLease) -> None:
        await self._holds((lease.lineage, lease.version))
        answer = await self._maker.heldout(self._prompts.heldout[lease.prompt_index], lease.prompted)
        await self._ledger.report_evaluation(
            self._spec.name,
            EvaluationResult(
                lease.evaluation,
                lease.item,
                lease.attempt,
                answer.score,
                answer.completion_tokens,
                completion=answer.completion,
                truncated=answer.truncated,
            ),
        )

    async def _holds(self, version: tuple[int, int]) -> None:
        deadline_s = self._spec.run.weights.deadline_s
        try:
            async with asyncio.timeout(deadline_s), self._loaded:
                await self._loaded.wait_for(lambda: self._held >= version)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"weight version {version} in {self._spec.name} (it holds {self._held})", deadline_s
            ) from error

    async def _weight_loop(self) -> None:
        """A version whose publisher has died is waited for until its successor's, or as long as one load
        may take."""
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
            self._sync["weight_sync_s"] += time.monotonic() - started_s
            self._sync["weight_sync_pause_s"] += pause_s
            self._sync["weight_syncs"] += 1
        else:
            self._holds_now(version)
        async with self._loaded:
            self._loaded.notify_all()

    def _holds_now(self, version: WeightVersion) -> None:
        self._held = (version.lineage, version.step)


async def _start_engine(spec: WorkerSpec, contexts: Contexts, context_limit: int) -> Engine:
    run, label = spec.run, version_label(spec.lineage, 0)
    if run.rollout.engine == "deterministic":
        from dynalign.rollout.engine.deterministic import DeterministicEngine

        size = len(contexts.tokenizer)
        return DeterministicEngine(range(size // 2, size), contexts.tokenizer.eos_token_id, label)
    from dynalign.rollout.engine.vllm import VllmEngine

    adapter, name = travelling_adapter(run), f"{run.name}/{spec.name}"
    return await VllmEngine.start(
        spec.model_folder, run.rollout, context_limit, label, run.seed, adapter, name, metrics
    )


def _encode(group: Group) -> bytes:
    from dynalign.rollout.arrow_schema import encode, to_batch

    return encode([to_batch(group)])


def _scored(lease: Lease, group: Group, entry: SpoolEntry) -> ScoredGroup:
    scores = [score for score in group.scores_G if score is not None]
    return ScoredGroup(
        group_id=lease.group_id,
        attempt=lease.attempt,
        lineage=lease.lineage,
        name=entry.name,
        size_bytes=entry.size_bytes,
        checksum=entry.checksum,
        version_min=group.version_min,
        version_max=group.version_max,
        score_mean=fmean(scores) if scores else None,
        score_std=stdev(scores) if len(scores) > 1 else None,
        withheld_reason=group.withheld_reason,
    )


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
