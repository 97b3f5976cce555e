"""A worker's leases, against a ledger that answers slowly."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest

from dynalign.actors.ledger.ledger_client import LedgerClient
from dynalign.actors.ledger.ledger_link import LedgerLink
from dynalign.actors.ledger.ledger_spec import LedgerAnswer
from dynalign.actors.worker.lease_loop import REPORTS_APART_S, LeaseLoop
from dynalign.actors.worker.version_news import VersionNews
from dynalign.configs.errors import DeadlineExceeded
from dynalign.configs.sections.deadlines import DeadlineSettings
from dynalign.endpoint.base import Message, Question
from dynalign.rollout.ledger.kinds import AnyLease
from dynalign.rollout.ledger.probe_leases import ProbeLease
from dynalign.rollout.ledger.values import Delivered, Lease
from dynalign.rollout.weights.version import WeightVersion
from dynalign.run_folder import spool

SLOTS = 4


class Ledger(LedgerClient):
    """Gives `left` leases, each call taking a while; remembers every report, and the most that was ever
    out."""

    def __init__(self, left: int) -> None:
        self.left, self.issued, self.out, self.most_out = left, 0, 0, 0
        self.reports: list[list[Delivered]] = []
        self.call_s = 0.05
        self.version, self.known = cast(WeightVersion | None, None), list[tuple[int, int]]()

    async def ask(self, method: str, *arguments: Any, wait_s: float = 0.0) -> Any:
        await asyncio.sleep(self.call_s)
        if method == "renew":
            return []
        self.known.append(arguments[4])
        wanted = arguments[1] if method == "lease" else arguments[2]
        if method == "report":
            self.reports.append(arguments[1])
            self.out -= len(arguments[1])
        given, self.issued = (
            range(self.issued, self.issued + min(wanted, self.left)),
            self.issued + min(wanted, self.left),
        )
        self.left, self.out = self.left - len(given), self.out + len(given)
        self.most_out = max(self.most_out, self.out)
        leases = [Lease("train", number, 0, 0, 1, 1, 0, 1e9, "worker") for number in given]
        outcomes = () if method == "lease" else ("scored",) * len(arguments[1])
        return LedgerAnswer(outcomes, tuple(leases), self.version)


async def work_until(loop: LeaseLoop, done: Callable[[], bool]) -> None:
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(loop.run(group))
        while not done():
            await asyncio.sleep(0.01)
        loop.stop()
        await running


def loop_of(
    ledger: Ledger, folder: Path, work: Callable[[AnyLease], Coroutine[Any, Any, None]], group_s: float = 60.0
) -> LeaseLoop:
    deadlines = DeadlineSettings(group_s=group_s)
    link = cast(LedgerLink, ledger)
    return LeaseLoop(
        "worker",
        link,
        SLOTS,
        folder,
        deadlines,
        work,
        VersionNews("worker", link),
        several_nodes=lambda: False,
    )


def test_every_group_is_durable_before_it_is_reported_and_never_more_are_in_flight_than_there_are_slots(
    tmp_path: Path,
) -> None:
    ledger = Ledger(left=40)
    at_work = most_at_work = 0

    async def work(lease: AnyLease) -> None:
        nonlocal at_work, most_at_work
        assert isinstance(lease, Lease)
        at_work += 1
        most_at_work = max(most_at_work, at_work)
        await asyncio.sleep(0.001 * (lease.group_id % 5))
        at_work -= 1
        await loop.deliver(lease, b"bytes of %d" % lease.group_id, (0, 0))

    async def story() -> None:
        nonlocal loop
        loop = loop_of(ledger, tmp_path, work)
        await work_until(loop, lambda: sum(map(len, ledger.reports)) == 40)

    loop = cast(LeaseLoop, None)
    asyncio.run(story())
    delivered = [each for report in ledger.reports for each in report]
    assert sorted(each.group.group_id for each in delivered) == list(range(40))
    for each in delivered:
        payload = spool.read(tmp_path, each.group.entry)
        assert (payload, each.handle) == (
            b"bytes of %d" % each.group.group_id,
            None,
        )  # one node: the file is enough
    assert most_at_work == SLOTS
    assert ledger.most_out <= 2 * SLOTS  # a group on its way to the ledger has left its slot
    assert len(ledger.reports) < 40  # those that end while a report is under way share the next one
    assert loop.in_flight == 0


def test_a_question_of_the_probe_takes_no_slot_of_a_group(tmp_path: Path) -> None:
    question = Question("policy", (Message("user", "1 + 1"),))
    beside = ProbeLease("probe", 4, 0, question, 1, 1, 0, 1e9, "worker", beside=True)
    groups = [Lease("train", number, 0, 0, 1, 1, 0, 1e9, "worker") for number in range(SLOTS)]

    class Full(Ledger):
        async def ask(self, method: str, *arguments: Any, wait_s: float = 0.0) -> Any:
            await asyncio.sleep(self.call_s)
            wanted.append((method, arguments[1]))
            return LedgerAnswer((), (beside, *groups[1:]) if len(wanted) == 1 else (groups[0],), None)

    async def work(lease: AnyLease) -> None:
        at_work.append(lease)
        await asyncio.sleep(0.2)

    async def story() -> None:
        await work_until(loop_of(Full(0), tmp_path, work), lambda: len(at_work) == SLOTS + 1)

    wanted: list[tuple[str, int]] = []
    at_work: list[AnyLease] = []
    asyncio.run(story())
    assert wanted[:2] == [("lease", SLOTS), ("lease", 1)]  # three groups are at work, and the question


def test_a_stopping_worker_reports_what_it_has_in_hand_and_takes_nothing_more(tmp_path: Path) -> None:
    ledger = Ledger(left=1000)

    async def work(lease: AnyLease) -> None:
        assert isinstance(lease, Lease)
        await asyncio.sleep(0.1)
        await loop.deliver(lease, b"bytes", (0, 0))

    async def story() -> None:
        nonlocal loop
        loop = loop_of(ledger, tmp_path, work)
        await work_until(loop, lambda: loop.in_flight == SLOTS)

    loop = cast(LeaseLoop, None)
    asyncio.run(story())
    assert (sum(map(len, ledger.reports)), ledger.issued, ledger.out) == (SLOTS, SLOTS, 0)


def test_a_group_that_takes_too_long_ends_the_worker_by_name(tmp_path: Path) -> None:
    async def work(lease: AnyLease) -> None:
        await asyncio.sleep(30)

    async def story() -> None:
        loop = loop_of(Ledger(left=1), tmp_path, work, group_s=0.05)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(loop.run(group))

    with pytest.raises(ExceptionGroup) as ended:
        asyncio.run(story())
    (error,) = ended.value.exceptions
    assert isinstance(error, DeadlineExceeded)
    assert "in worker: its engine hangs" in str(error)


def test_every_call_says_what_version_is_known_and_its_answer_brings_the_newest(tmp_path: Path) -> None:
    ledger = Ledger(left=2)
    ledger.version = WeightVersion(1, 3, b"", (), 0)

    async def work(lease: AnyLease) -> None:
        assert isinstance(lease, Lease)
        await asyncio.sleep(0.2 * lease.group_id)  # in two reports
        await loop.deliver(lease, b"bytes", (0, 0))

    async def story() -> None:
        nonlocal loop
        loop = loop_of(ledger, tmp_path, work)
        await work_until(loop, lambda: len(ledger.reports) == 2)

    loop = cast(LeaseLoop, None)
    asyncio.run(story())
    assert ledger.known[0] == (0, 0)
    assert len(ledger.known) > 2
    assert set(ledger.known[1:]) == {(1, 3)}


def reported_and_ended() -> tuple[list[list[int]], dict[int, float]]:
    """The groups of each report, and when each of four groups was acknowledged, of one loop."""
    ledger, ended_s = Ledger(left=SLOTS), dict[int, float]()
    ends_s = (0.0, REPORTS_APART_S / 5, 2 * REPORTS_APART_S / 5, 0.6)

    async def work(lease: AnyLease) -> None:
        assert isinstance(lease, Lease)
        await asyncio.sleep(ends_s[lease.group_id])
        await loop.deliver(lease, b"bytes", (0, 0))
        ended_s[lease.group_id] = time.monotonic()

    async def story() -> None:
        nonlocal loop
        ledger.call_s = 0.0
        # What is timed is the loop, not a disk that others sync.
        with TemporaryDirectory(dir="/dev/shm") as spool_folder:
            loop = loop_of(ledger, Path(spool_folder), work)
            await work_until(loop, lambda: len(ended_s) == SLOTS)

    loop = cast(LeaseLoop, None)
    asyncio.run(story())
    return [[each.group.group_id for each in report] for report in ledger.reports], ended_s


def test_groups_that_end_close_together_share_a_report_and_the_last_group_goes_at_once() -> None:
    """In one of some runs: a busy machine stops a loop for a moment."""

    def well_timed() -> bool:
        reports, ended_s = reported_and_ended()
        shared = REPORTS_APART_S < ended_s[2] - ended_s[0] < 4 * REPORTS_APART_S
        at_once = ended_s[3] - ended_s[0] < 0.6 + REPORTS_APART_S / 2
        return reports == [[0], [1, 2], [3]] and shared and at_once

    assert any(well_timed() for _ in range(20))
