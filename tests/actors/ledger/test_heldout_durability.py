"""Held-out answers on disk: they outlive the ledger, and no lineage but their own."""

import asyncio
from pathlib import Path

from dynalign.actors.ledger.ledger_actor import LedgerActor
from dynalign.rollout.ledger.evaluation_leases import EvaluationItem, EvaluationLease, EvaluationResult
from dynalign.rollout.ledger.values import Delivered
from tests.worlds.ledger_actor_world import LedgerFolder, leases_of, tell, version

HELDOUT = [EvaluationItem(index, prompted=False) for index in range(3)]


async def asked_beside(actor: LedgerActor, place: LedgerFolder) -> EvaluationLease:
    """A held-out item that a group has paid for, in the hands of `worker-0`."""
    (group,) = await leases_of(actor, 1, "worker-9")
    await actor.report("worker-9", [Delivered(place.scored(group), None, completion_tokens=100_000)])
    (lease,) = (await actor.lease("worker-0", 0, wait_s=0.0)).leases
    assert isinstance(lease, EvaluationLease)
    assert lease.beside
    return lease


def answer(lease: EvaluationLease) -> EvaluationResult:
    return EvaluationResult(lease.key, 2.0, 3, "So.", False, 9, lease.version, lease.version + 1)


def test_held_out_answers_outlive_the_ledger_and_its_leases_are_void(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger(compact_bytes=1)
        await place.train(actor, 1)
        assert await actor.evaluate(1, HELDOUT, deadline_s=0.0) is None
        kept = answer(await asked_beside(actor, place))
        assert await actor.report_evaluation("worker-0", kept) == "scored"
        assert await actor.report_evaluation("worker-0", kept) == "repeated"
        lost = await asked_beside(actor, place)
        assert (await actor.status()).evaluation == 1
        assert (await actor.status()).heldout_tokens == 12
        await place.score(actor, 2)
        await actor.take(2, deadline_s=0.0)
        await actor.commit(2, version(2))
        await place.checkpoint(actor, 2)
        await place.forget(actor, 2)  # which compacts the log
        again = await place.ledger(step=2)
        assert (await again.status()).evaluation == 1
        assert await again.report_evaluation("worker-0", answer(lost)) == "late"
        waiting = asyncio.create_task(again.evaluate(1, HELDOUT, deadline_s=50.0))
        await asyncio.sleep(0)
        leases = (await again.lease("worker-1", 9, wait_s=0.0)).leases
        rest = [answer(lease) for lease in leases if isinstance(lease, EvaluationLease)]
        assert [each.item for each in rest] == [1, 2]
        for each in rest:
            await again.report_evaluation("worker-1", each)
        assert await waiting == (kept, *rest)
        assert await again.evaluate(1, HELDOUT, deadline_s=0.0) == (kept, *rest)

    tell(tmp_path, story)


def test_held_out_answers_of_another_lineage_are_asked_again(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        await place.train(actor, 1)
        await place.checkpoint(actor, 1)
        await actor.evaluate(1, HELDOUT, deadline_s=0.0)
        old = answer(await asked_beside(actor, place))
        await actor.report_evaluation("worker-0", old)
        place.owner.new_lineage(2.0)
        later = await place.ledger(step=1)
        assert (await later.status()).evaluation is None
        assert await later.evaluate(1, HELDOUT, deadline_s=0.0) is None
        assert await later.report_evaluation("worker-0", old) == "late"
        assert (await asked_beside(later, place)).item == 0

    tell(tmp_path, story)
