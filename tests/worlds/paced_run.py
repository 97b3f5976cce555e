"""A run without misfortunes over engines of a given speed, to see what work beside the groups costs a step.

Simulated are time, processes, messages and learner, as in `history.py`, with the mean of every random
duration; real are ledger, coordinator, supervision and lease loops. An engine shares its tokens per second
equally among its sequences, however many there are: the worst case, since a real one is faster with more of
them. What is read counts as much as what is written, though a prefill is far quicker. A group's lengths
depend on its number alone, so that two runs generate the same.
"""

import asyncio
import gc
import heapq
import json
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, cast

from dynalign.actors.ledger.ledger_actor import LedgerActor
from dynalign.actors.ledger.ledger_spec import LedgerSpec
from dynalign.actors.run_spec import RunSpec
from dynalign.actors.worker.protocol import RolloutWorkerHandle
from dynalign.configs.schema import RunSettings
from dynalign.endpoint.base import Answer, Answers
from dynalign.rollout.ledger.evaluation_leases import EvaluationLease, EvaluationResult
from dynalign.rollout.ledger.kinds import AnyLease
from dynalign.rollout.ledger.probe_leases import ProbeLease, ProbeResult
from dynalign.rollout.ledger.values import Lease
from dynalign.rollout.prompts import Prompt, PromptSet
from dynalign.run_folder import owner
from tests.worlds.history_actors import HistoryWorker
from tests.worlds.history_cluster import Cluster
from tests.worlds.virtual_time import Process, VirtualLoop

ASKED_TOKENS = 60
"""Tokens of one question of the probe, and of one held-out prompt."""


class Mean(Random):
    """Every random duration is its mean, every choice the first."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2

    def choice(self, seq: Any) -> Any:
        return seq[0]


class NoFate:
    """Nothing happens to anybody."""

    def before_callback(self, process: Process) -> None: ...
    def before_change(self, process: Process) -> None: ...


class SharedEngine:
    """tokens_per_s: of all its sequences together."""

    def __init__(self, tokens_per_s: float) -> None:
        self._rate = tokens_per_s
        self._served = 0.0
        """Tokens that a sequence has got that was there from the start."""
        self._since_s = 0.0
        self._ends: list[tuple[float, int, asyncio.Future[None]]] = []
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None

    async def generate(self, tokens: int) -> None:
        self._advance()
        self._number += 1
        done = asyncio.get_running_loop().create_future()
        heapq.heappush(self._ends, (self._served + tokens, self._number, done))
        self._plan()
        await done

    def _advance(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._ends:
            self._served += (now_s - self._since_s) * self._rate / len(self._ends)
        self._since_s = now_s

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._ends:
            left_s = max(0.0, self._ends[0][0] - self._served) * len(self._ends) / self._rate
            self._timer = asyncio.get_running_loop().call_later(left_s, self._end)

    def _end(self) -> None:
        self._advance()
        while self._ends and self._ends[0][0] <= self._served + 1e-6:
            heapq.heappop(self._ends)[2].set_result(None)
        self._plan()


class PacedWorker(HistoryWorker):
    """Its groups and its answers share one engine. A held-out answer is as long as a training candidate."""

    engine: SharedEngine
    run: RunSettings

    async def _work(self, lease: AnyLease) -> None:
        async with self._loaded:
            await self._loaded.wait_for(lambda: self._held >= (lease.lineage, lease.version))
        oldest = self._held[1]
        if isinstance(lease, ProbeLease):
            tokens = Random(lease.item).randint(1, lease.question.max_tokens)
            await self.engine.generate(ASKED_TOKENS + tokens)
            answers = Answers((Answer("0", "stop"),), "policy", ASKED_TOKENS, tokens)
            await self._ledger.report_probe(
                self._name, ProbeResult(lease.key, answers, oldest, self._held[1])
            )
            return
        rollout = self.run.rollout
        if isinstance(lease, EvaluationLease):
            tokens = Random(lease.item).randint(10, rollout.max_completion_tokens)
            await self.engine.generate(ASKED_TOKENS + tokens)
            result = EvaluationResult(lease.key, 2.0, tokens, "", False, ASKED_TOKENS, oldest, self._held[1])
            await self._ledger.report_evaluation(self._name, result)
            return
        assert isinstance(lease, Lease)
        lengths = Random(lease.group_id)
        tokens_G = [lengths.randint(10, rollout.max_completion_tokens) for _ in range(rollout.group_size)]
        await asyncio.gather(*(self.engine.generate(tokens) for tokens in tokens_G))
        versions = (oldest, self._held[1])
        payload = json.dumps({"group": lease.group_id}).encode()
        await self._leases.deliver(lease, payload, versions, completion_tokens=sum(tokens_G))


class PacedCluster(Cluster):
    """tokens_per_s: of each engine."""

    tokens_per_s: float

    def worker(self, spec: RunSpec, seat: str, name: str) -> RolloutWorkerHandle:
        def create() -> PacedWorker:
            made = PacedWorker(name, spec, self._link(), self._random, lambda _: False)
            made.engine = SharedEngine(self.tokens_per_s)
            made.run = self.run
            return made

        return cast(RolloutWorkerHandle, self._actor(name, "worker", create))


class PacedRun:
    """A run in an empty folder. It is the `Watch` of its cluster."""

    def __init__(self, folder: Path, run: RunSettings, tokens_per_s: float) -> None:
        self._folder = folder
        self._learns_s: list[float] = []
        self._loop = VirtualLoop(Mean(0), NoFate())
        prompts = tuple(Prompt(f"train-{i}", "?", "d", "train") for i in range(64))
        heldout = tuple(Prompt(f"heldout-{i}", "?", "d", "heldout") for i in range(run.heldout.prompts))
        self._cluster = PacedCluster(1, run, PromptSet(prompts, heldout), folder, Mean(0), self)
        self._cluster.tokens_per_s = tokens_per_s

    def live(self) -> list[float]:
        """Virtual seconds from the training of each step to that of the next."""
        driver = self._cluster.driver
        try:
            mine = owner.acquire(self._folder, 1.0)
            driving = self._loop.create_task(self._cluster.drive(mine), context=driver.context())
            self._loop.run_until_complete(driving)
        finally:
            self._loop.end()
            gc.unfreeze()  # the ledger freezes what is there at its start
        assert not self._loop.problems, self._loop.problems
        return [after - before for before, after in pairwise(self._learns_s)]

    def opened(self, ledger: LedgerActor, spec: LedgerSpec) -> None: ...
    def fsync(self, descriptor: int) -> None: ...

    def breaks(self, process: Process, prompt_index: int) -> bool:
        return False

    def fails(self, what: str) -> bool:
        if what == "not finite":  # asked once for each step, by the learner
            self._learns_s.append(self._loop.time())
        return False
