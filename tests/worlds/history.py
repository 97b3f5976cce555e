"""A random history of a run over the product's ledger, coordinator, supervision, lease loops and files.

Simulated are time, processes and messages (`virtual_time.py`, `history_network.py`), the engine and the
learner (`history_actors.py`), and the driver (`history_cluster.py`). `history_chaos.py` says who dies when,
`history_audit.py` what must hold. One seed is one history.
"""

import asyncio
import gc
import os
from functools import partial
from pathlib import Path
from random import Random

from dynalign.actors.ledger.ledger_actor import LedgerActor
from dynalign.actors.ledger.ledger_spec import LedgerSpec
from dynalign.configs.errors import StaleLineage, UserError
from dynalign.configs.schema import RunSettings
from dynalign.rollout.prompts import Prompt, PromptSet
from dynalign.run_folder import layout, owner
from tests.worlds.history_audit import (
    audit_capability,
    audit_end,
    audit_heldout,
    audit_idempotence,
    audit_opening,
)
from tests.worlds.history_chaos import Chaos
from tests.worlds.history_cluster import Cluster
from tests.worlds.virtual_time import NOBODY, Process, VirtualLoop, watch_file_system

LONGEST_S = 20_000.0
"""Virtual seconds within which a run ends, misfortunes included."""
CALM_S = 6_000.0
"""Virtual seconds after which nothing happens to it any more."""
ZOMBIES_S = 150.0
"""Virtual seconds that processes that hung have to do harm after the run's end."""


class History:
    """The history of `seed` in an empty folder. `events` is what happened."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = Random(seed)
        self.run = _settings(self.random)
        self.prompts = _prompts(self.random)
        self.events: list[str] = []
        self.findings: list[str] = []
        self.clusters: list[Cluster] = []
        self._synced_bytes: dict[int, int] = {}
        self._acknowledged: tuple[int, set[int]] = (0, set())
        self._ledger: LedgerActor | None = None
        self._poison = self.random.choice([None, None, 0])
        self._not_finite = 1
        self.chaos = Chaos(
            self.random, self.random.randint(1, 9), self._die, self._hang, self._cut_power, self._tell
        )
        self.loop = VirtualLoop(self.random, self.chaos)

    def live(self) -> None:
        """From the first driver to the audit. Raises AssertionError with all that was found."""
        watch_file_system()
        try:
            self.loop.run_until_complete(self.loop.create_task(self._live(), context=NOBODY.copy()))
            audit_end(self.folder, self.run, self.find)
            audit_capability(self.folder, self.run, self.find)
            audit_heldout(self.folder, self.run, self.find)
        finally:
            self.loop.end()
            gc.unfreeze()  # every ledger freezes what is there at its start
        self.findings += self.loop.problems
        assert not self.findings, "\n".join([*self.findings, "", *self.events])

    def find(self, holds: bool, what: str) -> None:
        """Something that must hold."""
        if not holds:
            self.findings.append(what)
            self._tell(f"FINDING {what}")

    # ---- drivers, one after another

    async def _live(self) -> None:
        self.loop.call_later(CALM_S, self.chaos.calm)
        while self.loop.time() < LONGEST_S:
            mine = await self._own()
            number = len(self.clusters) + 1
            cluster = Cluster(number, self.run, self.prompts, self.folder, self.random, self)
            self.clusters.append(cluster)
            self._tell(f"driver {number} begins lineage {mine.lineage} at step {cluster.newest()}")
            driving = self.loop.create_task(cluster.drive(mine), context=cluster.driver.context())
            await self._until_over(cluster, driving)
            if cluster.ending is not None:
                self._tell(f"driver {number} {cluster.ending.state}")
                if cluster.ending.state == "finished":
                    await asyncio.sleep(ZOMBIES_S)
                    return
        self.find(False, f"the run does not end within {LONGEST_S:g} virtual seconds")

    async def _own(self) -> owner.Owner:
        """Another driver is refused while the one before counts as alive."""
        while True:
            try:
                return owner.acquire(self.folder, self.loop.time())
            except UserError:
                await asyncio.sleep(2.0)

    async def _until_over(self, cluster: Cluster, driving: "asyncio.Task[None]") -> None:
        """Returns when another driver may have its turn."""
        asked = [self.random.uniform(5.0, 200.0) for _ in range(self.random.randint(0, 3))]
        while not driving.done() and not cluster.driver.dead:
            await asyncio.sleep(0.5)
            if asked and self.loop.time() > asked[0] and cluster.supervisor is not None:
                asked.pop(0)
                self._ask(cluster)
            if cluster.driver.hung:
                stamp = owner.read(self.folder)
                if stamp is not None and self.loop.time() - stamp.beat_s > owner.YOUNG_S:
                    driving.add_done_callback(partial(self._ended, cluster), context=NOBODY.copy())
                    return
        if not cluster.driver.dead:
            self._ended(cluster, driving)
        else:
            await asyncio.sleep(self.random.choice([0.0, 1.0, 20.0]))  # until Ray has ended its actors
            cluster.die()

    def _ended(self, cluster: Cluster, driving: "asyncio.Task[None]") -> None:
        error = None if cluster.driver.dead else driving.exception()
        cluster.die()
        taken_over = isinstance(error, StaleLineage) and cluster is not self.clusters[-1]
        self.find(error is None or taken_over, f"the driver ended with {error!r}")

    def _ask(self, cluster: Cluster) -> None:
        """What a person may ask."""
        supervisor = cluster.supervisor
        assert supervisor is not None
        what = self.random.choice(["pause", "stop", "scale"])
        self._tell(f"asked: {what}")
        here = cluster.driver.context
        if what == "scale":
            self.loop.call_soon(supervisor.scale, self.random.randint(1, 3), "asked", context=here())
            return
        self.loop.call_soon(supervisor.ask, what, context=here())
        if what == "pause":
            self.loop.call_later(self.random.uniform(0.0, 30.0), supervisor.ask, "resume", context=here())

    # ---- misfortunes

    def _die(self, process: Process) -> None:
        """A kill may come in the middle of a write."""
        serves = process.kind == "ledger" and self.clusters[-1].serves(process)
        process.die()
        if serves and self._ledger is not None:
            state = self._ledger._ledger.state
            self._acknowledged = (self._ledger._spec.lineage, set(state.scored))
            if self.random.random() < 0.5:
                with (self.folder / layout.LEDGER_LOG).open("ab") as file:
                    file.write(b'{"born":0,"checksum":"0"')

    def _hang(self, process: Process) -> None:
        processes = [process]
        if process.kind == "driver" and self.random.random() < 0.5:
            (of_it,) = (cluster for cluster in self.clusters if cluster.driver is process)
            processes = [each for each in of_it.processes() if not each.dead]
        for each in processes:
            each.hung = True
            until_s = self.loop.time() + self.random.uniform(1.0, 60.0)
            self.loop.call_at(until_s, self._wake, each, context=NOBODY.copy())

    def _wake(self, process: Process) -> None:
        if process.condemned:
            self._tell(f"{process.name} wakes after it was replaced")
            self.loop.call_later(self.random.uniform(0.0, 5.0), process.die, context=NOBODY.copy())
        process.wake()

    def _cut_power(self) -> None:
        """The page cache is lost."""
        for cluster in self.clusters:
            cluster.die()
        log = self.folder / layout.LEDGER_LOG
        if not log.exists():
            return
        content = log.read_bytes()
        synced = self._synced_bytes.get(log.stat().st_ino, len(content))
        cut = self.random.randint(synced, len(content))
        hole = self.random.randint(synced, cut)
        lost = b"\0" * (cut - hole) + content[cut:]
        with log.open("r+b") as file:
            file.truncate(hole)
            file.seek(hole)
            file.write(lost if self.random.random() < 0.5 else b"")
        self._acknowledged = (0, set())
        self._tell(f"the log keeps its first {hole} bytes of {len(content)}; {synced} were synced")

    # ---- `Watch`

    def opened(self, ledger: LedgerActor, spec: LedgerSpec) -> None:
        state = ledger._ledger.state
        self._tell(f"a ledger opens lineage {spec.lineage} at step {state.version}: {state.counts()}")
        lineage, acknowledged = self._acknowledged
        acknowledged = acknowledged if lineage == spec.lineage else set()
        audit_opening(self.folder, spec, ledger._ledger, acknowledged, self.find)
        audit_idempotence(self.folder, spec, ledger._ledger, self.find)
        self._acknowledged = (0, set())
        self._ledger = ledger

    def fsync(self, descriptor: int) -> None:
        """Nothing is lost in a test, so the disk need not be asked."""
        about = os.fstat(descriptor)
        self._synced_bytes[about.st_ino] = about.st_size

    def breaks(self, process: Process, prompt_index: int) -> bool:
        breaks = prompt_index == self._poison
        if breaks:
            process.die()
        return breaks

    def fails(self, what: str) -> bool:
        if self.random.random() > 0.03 or (what == "not finite" and self._not_finite == 0):
            return False
        self._not_finite -= what == "not finite"
        self._tell(f"the learner's step fails: {what}")
        return True

    def _tell(self, what: str) -> None:
        self.events.append(f"{self.loop.time() if self.events else 0.0:9.2f} {what}")


def _settings(random: Random) -> RunSettings:
    shared = random.random() < 0.2
    return RunSettings.model_validate(
        {
            "name": "history",
            "model": "none",
            "steps": random.randint(2, 6),
            "tensorboard": False,
            "log_level": "error",
            "rollout": {
                "prompts_per_step": random.randint(1, 4),
                "groups_in_flight": random.randint(1, 3),
                "workers": {"min": random.randint(1, 3), "max": 3},
            },
            "algorithm": {
                "max_staleness": 0 if shared else random.randint(0, 2),
                "max_refill": random.choice([0.0, 1.0]),
            },
            "placement": {"mode": "shared" if shared else "separate"},
            "heldout": {
                "prompts": random.choice([0, 1, 1, 2]),
                "prompted": random.random() < 0.3,
                "every_steps": random.randint(1, 2),
                "waits": shared or random.random() < 0.2,
            },
            "capability": {
                "items": random.choice([0, 32, 32]),
                "every_steps": random.randint(1, 3),
            },
            "checkpoint": {"every_steps": random.randint(1, 3), "keep_last": random.randint(1, 2)},
            "deadlines": {
                "lease_s": 20.0,
                "silence_s": 5.0,
                "start_s": 60.0,
                "step_s": 40.0,
                "checkpoint_s": 40.0,
            },
            "supervision": {"restarts": 1000, "poison_attempts": 2},
            "metrics": {"port": None},
        }
    )


def _prompts(random: Random) -> PromptSet:
    def some(split: str, count: int) -> tuple[Prompt, ...]:
        return tuple(Prompt(f"{split}-{i}", "?", "d", split) for i in range(count))

    return PromptSet(some("train", random.randint(3, 9)), some("heldout", 2))
