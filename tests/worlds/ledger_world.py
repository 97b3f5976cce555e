"""A simulated run for the properties of the ledger: coordinator, learner, workers, disk, and their failures.

The ledger, its restore and its log lines are the product's; bytes, models and clocks are numbers. The
invariants are checked after every event. The coordinator advances one line of its loop per event, so that an
actor can die between any two of them, and inside a commit between the log line and the acknowledgement.
"""

from dataclasses import replace
from random import Random
from typing import Any

from dynalign.configs.errors import NoSignal
from dynalign.rollout.ledger.log import committed
from dynalign.rollout.ledger.log_lines import LogLine
from dynalign.rollout.ledger.restore import compacted, opening, restore
from dynalign.rollout.ledger.state import pack
from dynalign.rollout.ledger.values import (
    JUDGE_UNREACHABLE,
    POISON,
    Break,
    Commit,
    GroupKey,
    Lease,
    LedgerSettings,
    ScoredGroup,
)
from dynalign.rollout.prompts import PromptOrder
from dynalign.run_folder.spool import SpoolEntry
from tests.worlds.ledger_hand import (
    PROMPTS,
    broken_by,
    commit_step,
    expire,
    quarantined,
    scored_group,
    worker_died,
    worker_left,
)
from tests.worlds.ledger_invariants import check

REASONS = ("low_signal", "unparsed", JUDGE_UNREACHABLE, "refused")
"""Why a worker withholds a group; the last one is not replaced within a bound."""


class World:
    """The run. poison: indices of the prompts that end the worker that generates for them."""

    def __init__(
        self,
        settings: LedgerSettings,
        seed: int,
        on_no_signal: str = "warn",
        signal: float = 0.8,
        poison: frozenset[int] = frozenset(),
    ) -> None:
        self.settings = settings
        self.random = Random(seed)
        self.on_no_signal = on_no_signal
        self.signal = signal
        self.poison = poison
        self.broke: dict[int, int] = {}
        """Prompt under quarantine to the workers that died with it leased alone."""
        self.alone: dict[str, GroupKey | None] = {}
        """Worker to the lease that it got while it had nothing in hand, unless it got another one after
        it."""
        self.condemned: set[int] = set()  # prompts that were withheld as poison
        self.log: list[LogLine] = []
        self.spool: dict[str, SpoolEntry] = {}
        self.checkpoints: list[tuple[dict[str, Any] | None, list[tuple[ScoredGroup, ...]]]] = [(None, [])]
        self.current = 0  # the checkpoint that the running lineage began from or wrote last
        self.learner: list[tuple[ScoredGroup, ...]] = []
        self.published = 0
        self.held: dict[str, list[Lease]] = {f"worker-{i}": [] for i in range(3)}
        self.reports: list[ScoredGroup] = []
        self.now_s = 0.0
        self.lineage = 1
        self.open_ledger()

    # ---- the coordinator's loop, one line at a time

    def open_ledger(self) -> None:
        snapshot = self.checkpoints[self.current][0]
        self.ledger = restore(
            self.settings, PromptOrder(PROMPTS, seed=1), snapshot, self.log, self.spool, self.lineage
        )
        assert all(scored.group.entry.name in self.spool for scored in self.ledger.state.scored.values())
        self.log.append(opening(self.ledger, snapshot, self.log))
        known = {prompt: len(broken_by(self.ledger, prompt)) for prompt in quarantined(self.ledger)}
        # More than before where a report without signal, which no log line keeps, had released the prompt.
        assert all(known[prompt] >= broke for prompt, broke in self.broke.items())
        self.broke = known
        self.begin()

    def begin(self) -> None:
        self.phase = "take"
        self.batch: tuple[ScoredGroup, ...] = ()
        self.group_ids: tuple[int, ...] = ()

    @property
    def step(self) -> int:
        return self.ledger.state.version + 1

    @property
    def finished(self) -> bool:
        return self.ledger.state.version == self.settings.steps

    def advance(self) -> bool:
        """Runs the loop's next line; False if it has to wait."""
        before = (self.phase, self.ledger.state.version)
        if not self.finished or self.phase == "checkpoint":
            {"take": self.take, "step": self.learn, "publish": self.publish, "log": self.log_commit,
             "commit": self.commit, "checkpoint": self.checkpoint}[self.phase]()  # fmt: skip
        return (self.phase, self.ledger.state.version) != before

    def take(self) -> None:
        try:
            reservation = self.ledger.take(self.step)
        except NoSignal:
            if self.on_no_signal == "pause" or not (self.ledger.state.scored or self.ledger.state.leased):
                self.ledger.refill()
                return
            reservation = self.ledger.take_present(self.step)
        if reservation is not None:
            assert self.ledger.take(self.step) == reservation
            self.batch, self.phase = reservation.groups, "step"

    def learn(self) -> None:
        if len(self.learner) < self.step:  # else it answers what it answered before
            for group in self.batch:
                assert 0 <= len(self.learner) - group.version_min <= self.settings.max_staleness
            self.learner.append(self.batch)
        self.group_ids = tuple(group.group_id for group in self.learner[self.step - 1])
        self.phase = "publish"

    def publish(self) -> None:
        self.published = len(self.learner)
        self.phase = "log"

    def log_commit(self) -> None:
        commit = self.ledger.plan_commit(self.step, self.group_ids)
        assert isinstance(commit, Commit)
        self.log.append(commit)
        self.phase = "commit"

    def commit(self) -> None:
        step = self.step
        assert commit_step(self.ledger, step, self.group_ids) is not None
        assert commit_step(self.ledger, step, self.group_ids) is None
        self.phase = "checkpoint"

    def checkpoint(self) -> None:
        if self.random.random() < 0.5:
            self.checkpoints.append((pack(self.ledger.state, self.lineage), list(self.learner)))
            self.current = len(self.checkpoints) - 1
        self.begin()

    # ---- workers

    def lease(self) -> None:
        worker = self.random.choice(list(self.held))
        idle = not self.held[worker] and not self.ledger.leases.of_worker(worker)
        leases = self.ledger.leases.lease(
            worker, self.random.randint(1, 3), self.now_s, holds_other_leases=bool(self.held[worker])
        )
        assert len(leases) < 2 or not any(lease.prompt_index in self.broke for lease in leases)
        assert not leases or not self.held[worker] or leases[0].prompt_index not in self.broke
        if leases:
            self.alone[worker] = leases[0].key if idle and len(leases) == 1 else None
        assert all(lease.version == self.ledger.state.version for lease in leases)
        if leases:
            left = (self.settings.steps - self.ledger.state.version) * self.settings.prompts_per_step
            assert len(self.ledger.state.leased) + len(self.ledger.state.scored) <= left
        self.held[worker] += leases

    def finish(self, signal: float | None = None) -> None:
        """A worker writes and reports a group that it holds a lease of, which may have gone to another."""
        holders = [worker for worker, leases in self.held.items() if leases]
        if not holders:
            return
        worker = self.random.choice(holders)
        leases = self.held[worker]
        lease = leases.pop(self.random.randrange(len(leases)))
        if lease.prompt_index in self.poison:
            self.bury(worker)
            return
        oldest = self.random.randint(lease.version, max(lease.version, self.published))
        oldest -= self.random.random() < 0.02  # an engine that had not loaded the lease's version
        newest = max(oldest, self.published)
        dull = self.random.random() > (self.signal if signal is None else signal)
        group = scored_group(lease, oldest, newest, self.random.choice(REASONS) if dull else None)
        if not dull:
            self.spool[group.entry.name] = group.entry
        if self.random.random() > 0.03:  # else it dies between writing and reporting
            self.report(group)

    def report(self, group: ScoredGroup) -> None:
        leased = self.ledger.state.leased.get(group.group_id)
        current = leased is not None and leased.key == group.key
        outcome = self.ledger.report(group)
        assert (outcome in ("scored", "withheld")) == (
            current and leased is not None and group.version_min >= leased.version
        )
        if outcome in ("scored", "withheld"):
            self.broke.pop(self.ledger.order.at(group.group_id).index, None)
        if outcome == "scored":
            self.log.append(self.ledger.state.scored[group.group_id])
        self.reports.append(group)

    def report_again(self) -> None:
        if self.reports:
            counts = self.ledger.counts()
            outcome = self.ledger.report(self.random.choice(self.reports))
            assert outcome in ("repeated", "late")
            assert self.ledger.counts() == replace(counts, late=counts.late + (outcome == "late"))

    def time_passes(self) -> None:
        self.now_s += self.random.choice([0.1, 0.5, 1.5]) * self.settings.lease_s
        for worker, leases in self.held.items():
            if self.random.random() < 0.6:
                lost = self.ledger.leases.renew(worker, [lease.key for lease in leases], self.now_s)
                self.held[worker] = [lease for lease in leases if lease.key not in lost]
        expire(self.ledger, self.now_s)

    def worker_dies(self) -> None:
        worker = self.random.choice(list(self.held))
        if self.random.random() < 0.5:
            self.bury(worker)
        else:
            self.held[worker] = []  # the ledger does not learn of it, and the leases expire

    def bury(self, worker: str) -> None:
        """Each prompt that the worker held is under quarantine.

        Only one that it held alone has broken it; at poison_attempts, and not before, its group is withheld.
        """
        self.held[worker] = []
        held = self.ledger.leases.of_worker(worker)
        alone = len(held) == 1 and self.alone.get(worker) == held[0].key
        for lease in held:
            self.broke[lease.prompt_index] = self.broke.get(lease.prompt_index, 0) + alone
        breaks = worker_died(self.ledger, worker)
        for lease, each in zip(held, breaks, strict=True):
            broke = self.broke[lease.prompt_index]
            poison = alone and broke >= self.settings.poison_attempts
            key = (lease.group_id, lease.attempt, lease.lineage)
            assert each == Break(*key, lease.prompt_index, each.workers, poison)
            assert (len(each.workers), worker in each.workers) == (broke, alone)
            assert (self.ledger.state.withheld.get(lease.group_id) == POISON) == each.poison
            self.condemned |= {lease.prompt_index} if each.poison else set()
        self.log += breaks

    def worker_leaves(self) -> None:
        worker = self.random.choice(list(self.held))
        held = [lease.group_id for lease in self.ledger.state.leased.values() if lease.worker == worker]
        assert worker_left(self.ledger, worker) == held
        self.held[worker] = []

    # ---- failures

    def lose_groups(self) -> None:
        if self.phase == "step" and len(self.learner) < self.step:
            lost = self.random.sample(self.batch, self.random.randint(1, len(self.batch)))
            for group in lost:
                self.spool.pop(group.entry.name, None)
            self.ledger.requeue_missing(self.step, [group.group_id for group in lost])
            self.begin()

    def coordinator_dies(self) -> None:
        """A new one starts from the ledger's step. If the learner is a step ahead, it may first ask the
        learner which groups that step trained. The ledger finishes a commit that it has begun."""
        if self.phase == "commit":
            self.commit()
        self.begin()
        if len(self.learner) == self.step and not self.finished and self.random.random() < 0.5:
            self.learn()

    def ledger_dies(self) -> None:
        """It is restored in the same lineage. The coordinator keeps its batch if the step is the same."""
        step = self.step
        phase = "log" if self.phase == "commit" else self.phase
        batch = self.batch
        group_ids = self.group_ids
        self.open_ledger()
        if self.step == step:
            self.phase = phase
            self.batch = batch
            self.group_ids = group_ids

    def compact(self) -> None:
        """Drops the log's lines that the checkpoint which the running lineage wrote last makes
        superfluous."""
        snapshot = self.checkpoints[self.current][0]
        if snapshot is not None and snapshot["lineage"] == self.lineage:
            self.log = list(compacted(self.log, self.ledger, snapshot["version"]))

    def driver_dies(self) -> None:
        """All but some workers start again from a complete checkpoint, mostly the newest, in a new
        lineage."""
        newest = len(self.checkpoints) - 1
        self.current = self.random.choice([newest, newest, self.random.randrange(len(self.checkpoints))])
        self.learner = list(self.checkpoints[self.current][1])
        self.published = len(self.learner)
        self.lineage += 1
        for worker in self.held:
            if self.random.random() < 0.5:
                self.held[worker] = []
        self.open_ledger()

    # ---- what always holds

    def check(self) -> None:
        """Every event calls it."""
        check(self)

    def work_until_finished(self) -> None:
        """From here on no actor dies: the run must end within a bounded number of events."""
        for _ in range(20 * self.settings.steps + 20):
            self.now_s += 2 * self.settings.lease_s  # leases of dead workers expire
            expire(self.ledger, self.now_s)
            for _ in range(2 * (self.settings.max_staleness + 1) * self.settings.prompts_per_step):
                self.lease()
            while any(self.held.values()):
                self.finish(signal=1.0)
                self.check()
            while self.advance():
                self.check()
            if self.finished and self.phase == "take":
                return
        raise AssertionError(f"the run does not end: {self.ledger.waiting_reason()}, {self.ledger.counts()}")

    def check_history(self) -> None:
        """The history of the final weights trains every group at most once. Log, learner and ledger agree."""
        trained = [group.group_id for batch in self.learner for group in batch]
        assert len(self.learner) == self.settings.steps
        assert len(trained) == len(set(trained))
        assert [sorted(commit.group_ids) for commit in committed(self.log)] == [
            sorted(g.group_id for g in b) for b in self.learner
        ]
        self.ledger.end()
        counts = self.ledger.counts()
        assert (counts.pending, counts.leased, counts.scored, counts.trained) == (0, 0, 0, len(trained))
        assert counts.issued == counts.trained + counts.withheld
        assert not set(trained) & set(self.ledger.state.withheld)
        drawn = self.ledger.order
        assert not {drawn.at(group_id).index for group_id in trained} & self.poison
        poisoned = (i for i, reason in self.ledger.state.withheld.items() if reason == POISON)
        assert {drawn.at(i).index for i in poisoned} <= self.condemned
