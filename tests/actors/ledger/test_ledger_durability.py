"""The ledger's actor and its files: durable before acknowledged, fenced, restarted alone or from a
checkpoint."""

import asyncio
import errno
import threading
from pathlib import Path

import msgpack
import pytest

from dynalign.actors.ledger.ledger_spec import Batch
from dynalign.configs.errors import CheckpointError, ReplacedLedger, StaleLineage
from dynalign.rollout.ledger.log import committed, read
from dynalign.rollout.ledger.values import Scored
from dynalign.run_folder import layout, owner, spool
from dynalign.run_folder.layout import step_folder
from tests.worlds.ledger_actor_world import LedgerFolder, leases_of, report, tell, version


def test_a_step_is_on_disk_before_its_version_can_be_pulled(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        groups = await place.score(actor, 2)
        batch = await actor.take(1, deadline_s=0.0)
        assert batch == Batch(1, 0, tuple(groups), ("handle 0", "handle 1"))
        assert await actor.wait_version("a", (1, 0), wait_s=0.0) is None
        waiting = asyncio.create_task(actor.wait_version("a", (1, 0), wait_s=50.0))
        await asyncio.sleep(0)
        for _ in range(2):  # asked twice, it commits once
            await actor.commit(1, version(1))
        assert await waiting == version(1)
        (line,) = committed(read(place.folder / "ledger.log"))
        assert (line.step, line.group_ids) == (1, (0, 1))
        assert (await actor.status()).trained == 2

    tell(tmp_path, story)


def test_a_slow_disk_holds_up_a_version_and_its_leases_and_no_report(tmp_path: Path) -> None:
    on_disk = threading.Event()
    on_disk.set()

    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger(fsync=lambda _: on_disk.wait(10.0))
        await place.score(actor, 2)
        (slow,) = [place.scored(lease) for lease in await leases_of(actor, 1)]
        await actor.take(1, deadline_s=0.0)
        on_disk.clear()
        committing = asyncio.create_task(actor.commit(1, version(1)))
        while (await actor.status()).trained < 2:
            await asyncio.sleep(0)
        leasing = asyncio.create_task(actor.lease("a", 4, wait_s=5.0, known=(1, 0)))
        assert await report(actor, slow) == "scored"
        assert await actor.wait_version("b", (1, 0), wait_s=0.05) is None
        assert not committing.done()
        assert not leasing.done()
        on_disk.set()
        await committing
        answer = await leasing
        assert [lease.version for lease in answer.leases] == [1, 1, 1]
        assert answer.version == version(1)

    tell(tmp_path, story)


def test_a_commit_that_could_not_be_synced_is_synced_when_it_is_repeated(tmp_path: Path) -> None:
    outcomes = list[OSError | None]()

    def sync(_: int) -> None:
        outcome = outcomes.pop(0) if outcomes else None
        if outcome is not None:
            raise outcome

    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger(fsync=sync)
        await place.score(actor, 2)
        await actor.take(1, deadline_s=0.0)
        outcomes[:] = [OSError(errno.EIO, "the disk is broken"), None]
        with pytest.raises(OSError, match="broken"):
            await actor.commit(1, version(1))
        assert await actor.wait_version("a", (1, 0), wait_s=0.0) is None
        await actor.commit(1, version(1))
        assert await actor.wait_version("a", (1, 0), wait_s=0.0) == version(1)
        assert len(committed(read(place.folder / "ledger.log"))) == 1

    tell(tmp_path, story)


def test_a_ledger_that_lost_the_run_folder_writes_nothing_more(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        await place.score(actor, 2)
        await actor.take(1, deadline_s=0.0)
        owner.acquire(place.folder, now_s=1000.0)
        before = (place.folder / "ledger.log").read_bytes()
        for refused in (actor.commit(1, version(1)), place.forget(actor, 1)):
            with pytest.raises(StaleLineage):
                await refused
        assert (place.folder / "ledger.log").read_bytes() == before
        assert len(spool.names(place.folder / "spool")) == 2
        assert (await actor.status()).trained == 0

    tell(tmp_path, story)


def test_a_ledger_killed_after_the_log_line_of_a_commit_has_committed(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        dying = await place.ledger()
        await place.score(dying, 3)
        batch = await dying.take(1, deadline_s=0.0)
        planned = dying._ledger.plan_commit(1)
        assert planned is not None
        dying._log.append(planned, durable=True)

        actor = await place.ledger()
        await actor.commit(1, version(1), [group.group_id for group in batch.groups])
        assert len(committed(read(place.folder / "ledger.log"))) == 1
        status = await actor.status()
        assert (status.trained, status.scored, status.pending) == (2, 1, 0)

    tell(tmp_path, story)


def test_a_ledger_killed_before_the_commit_lets_the_learner_decide(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        dying = await place.ledger()
        await place.score(dying, 3)
        batch = await dying.take(1, deadline_s=0.0)
        spool.remove(place.folder / "spool", [batch.groups[0].entry.name])

        actor = await place.ledger()
        await actor.commit(1, version(1), [group.group_id for group in batch.groups])
        (line,) = committed(read(place.folder / "ledger.log"))
        assert line.group_ids == (0, 1)
        assert (await actor.status()).scored == 1

    tell(tmp_path, story)


def test_missing_groups_are_generated_again(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        await place.score(actor, 2)
        await actor.take(1, deadline_s=0.0)
        await actor.requeue_missing(1, [1])
        (again,) = await leases_of(actor, 1)
        assert (again.group_id, again.attempt) == (1, 2)
        await report(actor, place.scored(again), "new handle")
        assert (await actor.take(1, deadline_s=0.0)).handles == ("handle 0", "new handle")

    tell(tmp_path, story)


def test_a_resumed_run_goes_on_from_its_checkpoint_and_scores_again_what_was_trained_after_it(
    tmp_path: Path,
) -> None:
    async def story(place: LedgerFolder) -> None:
        first = await place.ledger()
        await place.score(first, 4)
        await first.take(1, deadline_s=0.0)
        await first.commit(1, version(1))
        await place.checkpoint(first, 1)
        await place.forget(first, 1)
        assert [name.split("-")[1] for name in spool.names(place.folder / "spool")] == ["2", "3"]
        await first.take(2, deadline_s=0.0)
        await first.commit(2, version(2))  # 2 and 3, which the checkpoint has as scored

        place.owner.new_lineage(now_s=2.0)
        second = await place.ledger(step=1)
        status = await second.status()
        assert (status.committed_step, status.trained, status.scored, status.rolled_back) == (
            1,
            2,
            2,
            2,
        )
        assert [group.group_id for group in (await second.take(2, deadline_s=0.0)).groups] == [2, 3]

    tell(tmp_path, story)


def test_forgetting_keeps_what_is_scored_leased_or_trained_later(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        await place.train(actor, 1)
        await place.train(actor, 2)
        await place.score(actor, 1, "low_signal")
        await place.score(actor, 1)
        (written,) = await leases_of(actor, 1)
        place.scored(written)  # on disk, its report still under way
        spool.write(
            place.folder / "spool", layout.group_file(9, 1, 1), b"of a worker that died before its report"
        )
        await place.forget(actor, 1)
        assert [name.split("-")[1] for name in spool.names(place.folder / "spool")] == ["2", "3", "5", "6"]

    tell(tmp_path, story)


@pytest.mark.parametrize(
    "content", [b"", b"\xc1", msgpack.packb([1]), msgpack.packb({"format": 1, "version": 7})]
)
def test_a_checkpoint_whose_ledger_is_damaged_or_of_another_step_is_refused(
    tmp_path: Path, content: bytes
) -> None:
    async def story(place: LedgerFolder) -> None:
        folder = step_folder(place.folder / "checkpoints", 2)
        folder.mkdir(parents=True)
        (folder / "ledger.msgpack").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"step-000002/ledger\.msgpack"):
            await place.ledger(step=2)

    tell(tmp_path, story)


def test_what_is_left_at_the_end_is_withheld_and_checkpointed(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        await place.train(actor, 1)
        await leases_of(actor, 2)
        await actor.end()
        status = await actor.status()
        assert (status.pending, status.leased, status.scored, status.withheld_by_reason) == (
            0,
            0,
            0,
            {"run_ended": 2},
        )
        assert msgpack.unpackb(await actor.snapshot())["ended"] is True
        assert await leases_of(actor, 1) == []

    tell(tmp_path, story)


def test_a_ledger_that_hung_and_was_replaced_answers_nothing_and_writes_nothing(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        hung = await place.ledger()
        await place.score(hung, 2)
        batch = await hung.take(1, deadline_s=0.0)
        await leases_of(hung, 9)
        waiting = asyncio.create_task(hung.lease("worker-1", 9, wait_s=50.0))
        await asyncio.sleep(0)
        serving = await place.ledger()
        await serving.commit(1, version(1), batch.group_ids)
        await place.train(serving, 2)
        before = (place.folder / "ledger.log").read_bytes()
        for call in (
            hung.commit(1, version(1), batch.group_ids),
            hung.take(1, deadline_s=0.0),
            hung.report("worker-0", []),
            hung.forget(1, []),
            hung.snapshot(),
            hung.status(),
            hung.offer(version(0)),
            hung.worker_left("worker-0", died=True),
            waiting,
        ):
            with pytest.raises(ReplacedLedger):
                await call
        assert (place.folder / "ledger.log").read_bytes() == before
        again = await place.ledger()
        assert (await again.status()).trained == 4

    tell(tmp_path, story)


def test_the_log_is_compacted_at_a_checkpoint_and_says_the_same_of_the_run(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger(compact_bytes=1)
        await place.train(actor, 1)
        await place.score(actor, 4)
        await actor.take(2, deadline_s=0.0)
        await actor.commit(2, version(2))
        await place.checkpoint(actor, 2)
        log = place.folder / "ledger.log"
        history = committed(read(log))
        assert sum(isinstance(line, Scored) for line in read(log)) == 6
        await place.forget(actor, 2)
        assert sum(isinstance(line, Scored) for line in read(log)) == 0
        await place.score(actor, 1)
        assert committed(read(log)) == history
        before = await actor.snapshot()
        again = await place.ledger(step=2)
        assert await again.snapshot() == before
        assert committed(read(log)) == history

    tell(tmp_path, story)
