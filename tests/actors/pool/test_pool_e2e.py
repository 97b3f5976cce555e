"""A pool of vLLM engines on a tiny random model, over real Ray: what it answers, and what a kill costs."""

import asyncio
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from dynalign.actors.pool.names import engine_names, ray_name
from dynalign.actors.pool.pool import Pool
from dynalign.actors.pool.pool_worker import CALLS, PoolWorker, PoolWorkerSpec
from dynalign.actors.remote import RayCalls
from dynalign.actors.run_spec import NAMESPACE
from dynalign.actors.supervision.worker_pool import WorkerPool
from dynalign.configs.errors import EndpointRefused
from dynalign.configs.sections.deadlines import DeadlineSettings
from dynalign.configs.sections.pool import PoolSettings
from dynalign.configs.sections.supervision import SupervisionSettings
from dynalign.endpoint.base import Message, Question
from dynalign.run_folder.events import EventLog
from tests.worlds.chat_models import tiny_chat_model

pytestmark = pytest.mark.e2e

DIGITS = ("0", "1", "2", "3", "4", "5")
VERDICT = Question(
    "judge", (Message("user", "Score it."),), max_tokens=1, temperature=0.0, choices=DIGITS, prefill="Grade: "
)
SCHEMA = '{"type": "object", "properties": {"score": {"enum": [1, 2, 3]}}, "required": ["score"]}'


class World:
    """Two engines in seats, and whoever asks them. It owns the seats, and is told of nothing that matters."""

    def __init__(self, folder: Path) -> None:
        self.model = tiny_chat_model(folder / "model")
        self.settings = PoolSettings(engines=2, kv_cache_gib=0.05, max_sequences=16, answer_s=60.0)
        self.deaths: list[str] = []
        events = EventLog(folder, lambda: 1)
        self.seats: WorkerPool[Any] = WorkerPool(
            2, DeadlineSettings(), SupervisionSettings(), self._create, self, events, RayCalls(), name="judge"
        )
        self.pool = Pool("judge.pool", engine_names("q", 2), 240.0, 3)

    def _create(self, seat: str, name: str) -> Any:
        spec = PoolWorkerSpec(name, "q", "info", self.settings, str(self.model), 512, "2026-01-31", 0, None)
        options: dict[str, Any] = {"name": ray_name("q", seat), "namespace": NAMESPACE}
        return ray.remote(PoolWorker).options(num_cpus=1, max_concurrency=CALLS, **options).remote(spec)

    def joined(self, worker: str, actor: Any) -> None: ...

    def leaving(self, worker: str) -> None: ...

    def left(self, worker: str, died: bool) -> None:
        self.deaths.append(worker)

    def fail(self, cause: str) -> None:
        raise AssertionError(cause)

    async def keep(self) -> None:
        """As the supervision: looks until it is cancelled."""
        while True:
            self.seats.look()
            await asyncio.sleep(0.1)

    async def pid(self, seat: str) -> int:
        return int((await ray.get_actor(ray_name("q", seat), namespace=NAMESPACE).here.remote())[1])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, namespace=NAMESPACE)
    made = World(tmp_path)
    yield made
    made.seats.clear()
    ray.shutdown()


@pytest.mark.timeout(600)
def test_a_pool_answers_with_fixed_weights_and_a_killed_engine_costs_time_and_no_answer(world: World) -> None:
    async def work() -> None:
        keeping = asyncio.create_task(world.keep())
        before = await world.pool.ask(VERDICT)
        (answer,) = before.answers_N
        assert answer.choice_logprobs is not None
        assert sum(map(math.exp, answer.choice_logprobs)) < 1.0
        chat = (Message("system", "Be brief."), Message("user", "Hi"))
        free = await world.pool.ask(Question("judge", chat, n=3, max_tokens=12, temperature=0.8, seed=4))
        again = await world.pool.ask(Question("judge", chat, n=3, max_tokens=12, temperature=0.8, seed=4))
        assert [each.text for each in free.answers_N] == [each.text for each in again.answers_N]
        assert len({each.text for each in free.answers_N}) == 3
        scored = await world.pool.ask(Question("judge", chat, max_tokens=40, json_schema=SCHEMA))
        assert scored.answers_N[0].text in ('{"score":1}', '{"score":2}', '{"score":3}'), "no blanks"
        with pytest.raises(EndpointRefused, match="vLLM refused"):
            await world.pool.ask(Question("judge", chat, json_schema='{"type": "no such type"}'))
        asking = [
            asyncio.create_task(world.pool.ask(Question("judge", chat, max_tokens=200, seed=seed)))
            for seed in range(12)
        ]
        await asyncio.sleep(0.2)
        os.kill(await world.pid("judge-0"), signal.SIGKILL)
        assert len(await asyncio.gather(*asking)) == 12
        while len(world.seats.serving()) < 2:
            assert keeping.done() is False
            await asyncio.sleep(0.5)
        assert world.deaths == ["judge-0"]
        after = await asyncio.gather(*(world.pool.ask(VERDICT) for _ in range(8)))
        for each in after:  # whichever engine answers, and whatever stands beside it in a batch
            found = each.answers_N[0].choice_logprobs or ()
            assert max(abs(a - b) for a, b in zip(found, answer.choice_logprobs, strict=True)) < 0.05
        keeping.cancel()

    asyncio.run(work())
