"""The worker pool over real Ray actors: what is wanted is there, and what dies or hangs is replaced."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from dynalign.actors.pool.names import engine_names, ray_name
from dynalign.actors.pool.pool import Pool
from dynalign.actors.pool.pool_worker import CALLS, PoolWorker, PoolWorkerSpec
from dynalign.actors.remote import RayCalls
from dynalign.actors.run_spec import NAMESPACE
from dynalign.actors.supervision.worker_pool import WorkerPool
from dynalign.actors.worker.protocol import WorkerStats
from dynalign.configs.errors import DeadlineExceeded, WeightsError
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.deadlines import DeadlineSettings
from dynalign.configs.sections.pool import PoolSettings
from dynalign.configs.sections.rollout import RolloutSettings, WorkersSettings
from dynalign.configs.sections.supervision import SupervisionSettings
from dynalign.endpoint.base import Message, Question
from dynalign.run_folder.events import EventLog, read_events

RUN = RunSettings(
    name="pool",
    model="m",
    rollout=RolloutSettings(workers=WorkersSettings(min=2, max=2)),
    deadlines=DeadlineSettings(silence_s=30.0, drain_s=30.0, place_s=90.0),
    supervision=SupervisionSettings(restarts=2),
)


@ray.remote(num_cpus=0, max_concurrency=8)
class Worker:
    """Does what it is told to, and no work."""

    def __init__(self, behaviour: str) -> None:
        self._behaviour, self._stopped = behaviour, asyncio.Event()

    async def here(self) -> tuple[str, int, float]:
        return os.uname().nodename, os.getpid(), psutil.Process().create_time()

    async def start(self) -> None:
        if self._behaviour == "refuses weights":
            raise WeightsError("they are torn")

    async def serve(self) -> None:
        await self._stopped.wait()

    async def stop(self) -> None:
        if self._behaviour != "never drains":
            self._stopped.set()

    async def stats(self) -> WorkerStats:
        return WorkerStats("", 7, 0, 0, 0, 0, "", 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)


class World:
    """The pool's owner, its clock, and what it was told."""

    def __init__(self, folder: Path, behaviour: str = "", cpus: float = 0.0) -> None:
        self.late_s, self.told, self.created, self.folder = 0.0, list[str](), list[str](), folder
        self._behaviour, self._cpus = behaviour, cpus
        events = EventLog(folder, lambda: 1)
        calls = RayCalls()
        self.pool: WorkerPool[Any] = WorkerPool(
            2, RUN.deadlines, RUN.supervision, self._create, self, events, calls, self.clock
        )

    def _create(self, seat: str, worker: str) -> Any:
        self.created.append(worker)
        return Worker.options(num_cpus=self._cpus).remote(self._behaviour)

    def clock(self) -> float:
        return time.monotonic() + self.late_s

    def joined(self, worker: str, actor: Any) -> None:
        self.told.append(f"{worker} joined")

    def leaving(self, worker: str) -> None:
        self.told.append(f"{worker} leaving")

    def left(self, worker: str, died: bool) -> None:
        self.told.append(f"{worker} {'died' if died else 'left'}")

    def fail(self, cause: str) -> None:
        self.told.append(f"failed: {cause}")

    def until(self, there: Callable[[], Any]) -> None:
        end_s = time.monotonic() + 60
        while not there():
            assert time.monotonic() < end_s, self.told
            self.pool.look()
            time.sleep(0.02)

    def until_told(self, *lines: str) -> None:
        self.until(lambda: set(lines) <= set(self.told))

    def pid(self, worker: str) -> int:
        return int(ray.get(dict(self.pool.serving())[worker].here.remote(), timeout=30)[1])


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def world(local_ray: None, tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.pool.clear()


def test_as_many_serve_as_are_wanted_the_youngest_drains_and_a_seat_s_next_worker_has_a_name_of_its_own(
    world: World,
) -> None:
    world.until_told("rollout-0 joined", "rollout-1 joined")
    world.until(lambda: [worker.version for worker in world.pool.stats()] == [7, 7])
    assert not world.pool.settling
    world.pool.wanted = 1
    assert world.pool.settling
    world.until_told("rollout-1 leaving", "rollout-1 left")
    assert not world.pool.settling
    assert [event.what for event in read_events(world.folder)] == ["drains"]
    world.pool.wanted = 2
    for _ in range(3):
        assert world.pool.settling
        world.pool.look()
    world.until_told("rollout-1.2 joined")
    assert not world.pool.restarts
    assert not world.pool.settling


def test_a_killed_worker_is_replaced_and_what_it_held_goes_back(world: World) -> None:
    world.until_told("rollout-0 joined", "rollout-1 joined")
    os.kill(world.pid("rollout-0"), signal.SIGKILL)
    world.until_told("rollout-0 died", "rollout-0.2 joined")
    assert world.pool.restarts == {"worker/died": 1}
    died, recovered = read_events(world.folder)
    assert (died.actor, died.what, died.cause) == ("rollout-0", "died", "died")
    assert (recovered.actor, recovered.what) == ("rollout-0.2", "recovered")
    assert recovered.lost_s is not None
    assert recovered.lost_s > 0


def test_a_worker_that_gives_no_sign_of_life_is_ended_with_its_process(world: World) -> None:
    world.until_told("rollout-0 joined", "rollout-1 joined")
    hung = world.pid("rollout-1")
    os.kill(hung, signal.SIGSTOP)
    time.sleep(1.5)  # the next question is asked, and stays without an answer
    world.pool.look()
    world.late_s += RUN.deadlines.silence_s + 5
    world.until_told("rollout-1 died")
    assert world.pool.restarts["worker/hung"] >= 1
    world.until(lambda: not psutil.pid_exists(hung) or psutil.Process(hung).status() == "zombie")


def test_a_worker_that_does_not_drain_in_its_time_is_ended_and_gives_back_what_it_held(
    local_ray: None, tmp_path: Path
) -> None:
    world = World(tmp_path, "never drains")
    world.until_told("rollout-0 joined", "rollout-1 joined")
    pid = world.pid("rollout-1")
    world.pool.wanted = 1
    world.until_told("rollout-1 leaving")
    world.until(lambda: world.pool.settling)
    world.late_s += RUN.deadlines.drain_s + 1
    world.until_told("rollout-1 left")
    world.until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")
    assert "rollout-1 died" not in world.told
    world.pool.clear()


def test_a_worker_whose_weight_update_fails_is_replaced_until_its_seat_s_budget_is_used_up(
    local_ray: None, tmp_path: Path
) -> None:
    world = World(tmp_path, "refuses weights")
    while not (failed := [line for line in world.told if line.startswith("failed")]):
        world.pool.look()
        if all(seat.state == "waiting" for seat in world.pool.stats()):
            world.late_s += 1.0  # the delay before the next attempt passes
        time.sleep(0.02)
        assert len(world.created) < 8
    assert failed[0].endswith("ended 3 times in 3600 s, the last time by WeightsError: they are torn")
    assert world.pool.restarts["worker/weights"] >= 3
    world.pool.clear()


def test_workers_for_which_the_cluster_has_no_room_are_waited_for_in_sight_and_not_for_ever(
    local_ray: None, tmp_path: Path
) -> None:
    world = World(tmp_path, cpus=64.0)
    world.pool.look()
    world.pool.look()
    assert world.pool.placing() == ("rollout-0", "rollout-1")
    assert world.pool.settling  # asked for just now
    world.late_s += 31.0
    assert not world.pool.settling
    world.late_s += RUN.deadlines.place_s + 1
    with pytest.raises(DeadlineExceeded, match="room in the cluster for rollout-0, rollout-1"):
        world.pool.look()
    world.pool.clear()


class Engines:
    """Two engines with fixed weights, as the supervision keeps them, and whoever asks them."""

    def __init__(self, folder: Path) -> None:
        # Not at the head: each of this module's actors imports it, and this one loads torch.
        from tests.worlds.chat_models import chat_tokenizer

        chat_tokenizer().save_pretrained(folder / "model")
        self._model = str(folder / "model")
        self._settings = PoolSettings(engine="deterministic", engines=2)
        self.told = list[str]()
        limits = (RUN.deadlines, RUN.supervision)
        self.seats: WorkerPool[Any] = WorkerPool(
            2,
            *limits,
            self._create,
            self,
            EventLog(folder, lambda: 1),
            RayCalls(),
            name="judge",
            kind="engine",
        )
        self.pool = Pool("judge.pool", engine_names("q", 2), 60.0, 3)

    def _create(self, seat: str, name: str) -> Any:
        spec = PoolWorkerSpec(name, "q", "info", self._settings, self._model, 400, "2026-01-31", 0, None)
        options: dict[str, Any] = {"name": ray_name("q", seat), "namespace": NAMESPACE}
        return ray.remote(PoolWorker).options(num_cpus=0, max_concurrency=CALLS, **options).remote(spec)

    def joined(self, worker: str, actor: Any) -> None:
        self.told.append(f"{worker} joined")

    def leaving(self, worker: str) -> None: ...

    def left(self, worker: str, died: bool) -> None:
        self.told.append(f"{worker} died")

    def fail(self, cause: str) -> None:
        self.told.append(f"failed: {cause}")

    async def until_told(self, *lines: str) -> None:
        async with asyncio.timeout(90):
            while not set(lines) <= set(self.told):
                self.seats.look()
                await asyncio.sleep(0.02)


def test_an_engine_with_fixed_weights_that_is_killed_is_replaced_under_its_name_and_nobody_loses_an_answer(
    local_ray: None, tmp_path: Path
) -> None:
    def question(seed: int) -> Question:
        return Question("judge", (Message("user", "Hi"),), max_tokens=8, seed=seed)

    async def work() -> None:
        engines = Engines(tmp_path)
        await engines.until_told("judge-0 joined", "judge-1 joined")
        first = await engines.pool.ask(question(0))
        actor: Any = ray.get_actor(ray_name("q", "judge-0"), namespace=NAMESPACE)
        asking = [asyncio.create_task(engines.pool.ask(question(seed))) for seed in range(20)]
        os.kill((await actor.here.remote())[1], signal.SIGKILL)
        answers = await asyncio.gather(*asking)
        assert answers[0] == first
        await engines.until_told("judge-0 died", "judge-0.2 joined")
        assert engines.seats.restarts == {"engine/died": 1}
        renewed: Any = ray.get_actor(ray_name("q", "judge-0"), namespace=NAMESPACE)
        assert (await renewed.stats.remote()).name == "judge-0.2"
        assert await asyncio.gather(*(engines.pool.ask(question(seed)) for seed in range(20))) == answers
        engines.seats.clear()

    asyncio.run(work())
