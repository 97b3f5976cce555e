"""The actors of a random history that the product has for real engines and models only: a worker over an
engine that just takes time, and a learner that remembers what it trained."""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from dynalign.actors.ledger.ledger_link import LedgerLink
from dynalign.actors.run_spec import RunSpec
from dynalign.actors.worker.lease_loop import LeaseLoop
from dynalign.actors.worker.protocol import WorkerProcess, WorkerStats
from dynalign.actors.worker.version_news import VersionNews
from dynalign.configs.errors import (
    CheckpointError,
    MissingGroups,
    RecordError,
    StepNotFinite,
    UntrainableGroups,
)
from dynalign.endpoint.base import Answer, Answers, Message, Question
from dynalign.rollout.ledger.evaluation_leases import EvaluationLease, EvaluationResult
from dynalign.rollout.ledger.kinds import AnyLease
from dynalign.rollout.ledger.probe_leases import ProbeLease, ProbeResult
from dynalign.rollout.ledger.values import Lease, ScoredGroup
from dynalign.rollout.weights.version import WeightVersion
from dynalign.run_folder import layout, spool


class HistoryWorker:
    """`RolloutWorker` with its lease loop and its version news. breaks: whether a prompt ends its worker."""

    def __init__(
        self, name: str, spec: RunSpec, ledger: LedgerLink, random: Random, breaks: Callable[[int], bool]
    ) -> None:
        self._name = name
        self._ledger = ledger
        self._random = random
        self._breaks = breaks
        self._news = VersionNews(name, ledger)
        self._leases = LeaseLoop(
            name,
            ledger,
            spec.run.rollout.groups_in_flight,
            Path(spec.run_folder) / layout.SPOOL,
            spec.run.deadlines,
            self._work,
            self._news,
            several_nodes=lambda: False,
            clock=asyncio.get_running_loop().time,
        )
        self._held = (0, 0)
        self._loaded = asyncio.Condition()

    async def here(self) -> WorkerProcess:
        return "elsewhere", 1, 0.0

    async def start(self) -> None:
        await asyncio.sleep(self._random.uniform(0.1, 5.0))

    async def serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            loops = [group.create_task(loop) for loop in (self._weight_loop(), self._news.poll())]
            await self._leases.run(group)
            for loop in loops:
                loop.cancel()

    async def stop(self) -> None:
        self._leases.stop()

    async def stats(self) -> WorkerStats:
        held = self._held[1]
        flight = self._leases.in_flight
        return WorkerStats(self._name, held, flight, 0, 0, 0, "", 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)

    async def sleep(self) -> None:
        await asyncio.sleep(self._random.uniform(0.0, 0.5))

    async def wake(self) -> None:
        await asyncio.sleep(self._random.uniform(0.0, 0.5))

    async def _weight_loop(self) -> None:
        while True:
            version = await self._news.next(self._held)
            await asyncio.sleep(self._random.uniform(0.0, 2.0))
            self._held = (version.lineage, version.step)
            async with self._loaded:
                self._loaded.notify_all()

    async def _work(self, lease: AnyLease) -> None:
        async with self._loaded:
            await self._loaded.wait_for(lambda: self._held >= (lease.lineage, lease.version))
        oldest = self._held
        straggles = self._random.random() < 0.05
        quick_s = 0.2 if isinstance(lease, ProbeLease) else 5.0
        await asyncio.sleep(
            self._random.uniform(20.0, 90.0) if straggles else self._random.uniform(0.1, quick_s)
        )
        newest = self._held
        if isinstance(lease, EvaluationLease):
            text = f"{oldest[1]} {newest[1]}"
            result = EvaluationResult(lease.key, 2.0, 3, text, False, 5, oldest[1], newest[1])
            await self._ledger.report_evaluation(self._name, result)
            return
        if isinstance(lease, ProbeLease):
            answer = Answer(f"{oldest[1]}", "stop")
            answers = Answers((answer,), "policy", 5, self._random.randint(1, 9))
            await self._ledger.report_probe(self._name, ProbeResult(lease.key, answers, oldest[1], newest[1]))
            return
        assert isinstance(lease, Lease)
        if self._breaks(lease.prompt_index):
            await asyncio.sleep(0)  # it is dead by now
        reason = "low_signal" if self._random.random() < 0.1 else None
        record = {"group": lease.group_id, "oldest": oldest, "newest": newest}
        payload = json.dumps(record).encode()
        versions = (oldest[1], newest[1])
        await self._leases.deliver(lease, payload, versions, reason, completion_tokens=20_000)


class HistoryItems:
    """A probe of so many items, each right under every second version; it is its own `ProbeDraw`."""

    def __init__(self, items: int) -> None:
        self.names = tuple(f"count/{number}" for number in range(items))
        asked = ((Message("user", name),) for name in self.names)
        self.questions = tuple(Question("policy", each, max_tokens=40) for each in asked)

    def open(self) -> "HistoryItems":
        return self

    def scores(self, answers: Sequence[Answers | None]) -> list[float | None]:
        return [None if each is None else float(int(each.answers_N[0].text) % 2) for each in answers]


class HistoryLearner:
    """One rank. `trained` holds the records of every step's groups; a checkpoint holds it too."""

    def __init__(self, spec: RunSpec, random: Random, fails: Callable[[str], bool]) -> None:
        self._spec = spec
        self._random = random
        self._fails = fails
        self._turn = asyncio.Lock()
        self._prepared: tuple[int, list[dict[str, Any]]] = (0, [])
        self._versions: dict[int, WeightVersion] = {}
        self.trained: list[list[dict[str, Any]]] = []

    async def rendezvous(self) -> tuple[str, int]:
        return "here", 1

    async def start(self, address: str, port: int) -> None:
        await self._takes(5.0)

    async def prepare(
        self, step: int, groups: Sequence[ScoredGroup], handles: Sequence[object], present: float
    ) -> None:
        async with self._turn:
            await self._takes(0.5)
            if step == len(self.trained):
                return
            assert step == len(self.trained) + 1, (step, len(self.trained))
            some = groups[0].group_id
            if self._fails("missing"):
                raise MissingGroups((some,))
            if self._fails("untrainable"):
                raise UntrainableGroups({some: "it holds nothing"})
            self._prepared = (step, self._read(groups))

    def _read(self, groups: Sequence[ScoredGroup]) -> list[dict[str, Any]]:
        records = []
        missing = []
        for group in groups:
            try:
                payload = spool.read(Path(self._spec.run_folder) / layout.SPOOL, group.entry)
            except (RecordError, OSError):
                missing.append(group.group_id)
            else:
                records.append(json.loads(payload))
        if missing:
            raise MissingGroups(tuple(missing))
        return records

    async def run(self, step: int) -> tuple[dict[str, float], tuple[int, ...]]:
        async with self._turn:
            await self._takes(4.0)
            if step == len(self.trained) + 1:
                if self._fails("not finite"):
                    raise StepNotFinite(step, float("nan"), 1.0)
                assert self._prepared[0] == step
                self.trained.append(self._prepared[1])
            return {"learn_s": 0.1}, self._groups(step)

    async def trained_step(self) -> int:
        async with self._turn:
            return len(self.trained)

    async def publish(self, step: int) -> tuple[WeightVersion, float] | None:
        async with self._turn:
            await self._takes(0.5)
            if step not in self._versions:
                if step != len(self.trained):
                    return None
                self._versions[step] = WeightVersion(self._spec.lineage, step, b"", (), 0)
                for old in sorted(self._versions)[:-2]:
                    del self._versions[old]
            return self._versions[step], 0.0

    async def save(self, aside: str, step: int) -> tuple[int, ...]:
        async with self._turn:
            await self._takes(2.0)
            if step != len(self.trained):
                raise CheckpointError(f"the learner is at step {len(self.trained)}, not at step {step}")
            folder = Path(aside) / layout.DEEPSPEED
            folder.mkdir(exist_ok=True)
            with (folder / layout.LEARNER_STATE).open("w") as file:
                json.dump(self.trained, file)
            return self._groups(step)

    async def load(self, folder: str) -> int:
        async with self._turn:
            await self._takes(2.0)
            self.trained = json.loads((Path(folder) / layout.DEEPSPEED / layout.LEARNER_STATE).read_text())
            return len(self.trained)

    def _groups(self, step: int) -> tuple[int, ...]:
        return tuple(record["group"] for record in self.trained[-1]) if step == len(self.trained) > 0 else ()

    async def _takes(self, most_s: float) -> None:
        await asyncio.sleep(self._random.uniform(0.0, most_s))
