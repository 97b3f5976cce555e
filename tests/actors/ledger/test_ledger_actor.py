"""The ledger's actor without Ray: every wait ends, in time and with a reason."""

import asyncio
from pathlib import Path

import pytest

from dynalign.actors.ledger.ledger_actor import LedgerActor
from dynalign.actors.ledger.ledger_spec import LedgerSpec
from dynalign.configs.errors import DeadlineExceeded, LedgerError, NoSignal
from dynalign.endpoint.base import Answer, Answers, Message, Question
from dynalign.rollout.ledger.evaluation_leases import EvaluationItem, EvaluationLease, EvaluationResult
from dynalign.rollout.ledger.probe_leases import ProbeAnswers, ProbeLease, ProbeResult
from dynalign.rollout.ledger.values import Delivered, WithheldScores
from tests.worlds.ledger_actor_world import RUN, LedgerFolder, leases_of, report, tell, version


def test_a_worker_waits_for_capacity_and_a_take_for_the_last_group(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        held = await leases_of(actor, 9)
        assert len(held) == 4
        lease = asyncio.create_task(actor.lease("worker-1", 9, wait_s=50.0))
        take = asyncio.create_task(actor.take(1, deadline_s=50.0))
        await report(actor, place.scored(held[0]))
        await asyncio.sleep(0.01)
        assert not take.done()
        await report(actor, place.scored(held[1]))
        assert (await take).handles == (None, None)
        assert not lease.done()
        await actor.commit(1, version(1))
        assert [each.version for each in (await lease).leases] == [1, 1]

    tell(tmp_path, story)


def test_a_wait_past_its_deadline_says_what_it_waited_for(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        await place.score(actor, 1)
        waiting = asyncio.create_task(actor.take(1, deadline_s=30.0))
        await asyncio.sleep(0)
        place.clock.now_s += 31.0
        with pytest.raises(
            DeadlineExceeded,
            match="waited 30 s for 1 of 2 groups scored; 0 leased to no worker, 0 pending, room for 3",
        ):
            await waiting
        assert (await actor.lease("worker-1", 0, wait_s=0.0)).leases == ()

    tell(tmp_path, story)


def test_the_wait_for_a_straggler_is_counted_apart(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        (straggler,) = await leases_of(actor, 1, "slow")
        await place.score(actor, 3)
        await actor.take(1, deadline_s=0.0)
        await actor.commit(1, version(1))
        await place.score(actor, 1)
        waiting = asyncio.create_task(actor.take(2, deadline_s=50.0))
        await asyncio.sleep(0)
        status = await actor.status()
        assert status.waiting_reason.startswith("straggler group 0 leased to slow")
        place.clock.now_s += 7.0
        assert (await actor.status()).oldest_lease_age_s == 7.0
        await report(actor, place.scored(straggler), worker="slow")
        assert (await waiting).groups[0].group_id == 0
        assert (await actor.status()).straggler_wait_s == 7.0

    tell(tmp_path, story)


def test_a_lease_that_is_not_renewed_expires_while_another_worker_waits(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        dead, alive = await leases_of(actor, 2, "dying"), await leases_of(actor, 2, "alive")
        waiting = asyncio.create_task(actor.lease("worker-1", 4, wait_s=500.0))
        await asyncio.sleep(0)
        place.clock.now_s += 60.0
        assert await actor.renew("alive", [lease.key for lease in alive]) == []
        place.clock.now_s += 60.0
        assert [(lease.key.attempt, lease.worker) for lease in (await waiting).leases] == [
            (2, "worker-1")
        ] * 2
        assert await actor.renew("dying", [lease.key for lease in dead]) == [lease.key for lease in dead]
        assert (await actor.status()).requeued == 2

    tell(tmp_path, story)


def test_a_worker_that_leaves_gives_its_leases_back_at_once(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        await leases_of(actor, 4, "leaving")
        await actor.worker_left("leaving", died=False)
        assert [lease.group_id for lease in await leases_of(actor, 4)] == [0, 1, 2, 3]
        assert list((await actor.status()).workers_seen_s_ago) == ["worker-0"]

    tell(tmp_path, story)


def test_a_worker_that_leaves_while_the_ledger_restores_itself_is_gone_for_it_too(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        spec = LedgerSpec(RUN, str(place.folder), place.owner.lineage, 0, prompts_count=3)
        actor = LedgerActor(spec, place.clock)
        left = asyncio.create_task(actor.worker_left("worker-0", died=True))
        await asyncio.sleep(0)
        await actor.start()
        assert await left == []
        assert await actor.offer(version(0))
        assert await leases_of(actor, 1) == []
        assert len(await leases_of(actor, 1, "worker-1")) == 1

    tell(tmp_path, story)


def test_a_call_that_outlives_its_worker_gets_no_lease(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        assert len(await leases_of(actor, 9, "dying")) == 4
        outlived = asyncio.create_task(actor.lease("dying", 9, wait_s=50.0))
        await asyncio.sleep(0)
        await actor.worker_left("dying", died=True)
        assert (await outlived).leases == ()
        status = await actor.status()
        assert (status.pending, status.leased, status.workers_seen_s_ago) == (4, 0, {})
        assert (await actor.lease("dying", 9, wait_s=50.0)).leases == ()
        assert len(await leases_of(actor, 9, "next")) == 1  # a suspect is leased alone

    tell(tmp_path, story)


def test_held_out_leases_come_first_and_do_not_enter_the_law(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        items = [EvaluationItem(5, prompted=False), EvaluationItem(5, prompted=True)]
        waiting = asyncio.create_task(actor.evaluate(0, items, deadline_s=50.0))
        await asyncio.sleep(0)
        leases = (await actor.lease("worker-0", 3, wait_s=0.0)).leases
        assert [lease.kind for lease in leases] == ["eval", "eval", "train"]
        assert (await actor.status()).issued == 1
        results = [
            EvaluationResult(each.key, 2.0, 3, "So.", False, 9, 0, 0)
            for each in leases
            if isinstance(each, EvaluationLease)
        ]
        for result in reversed(results):
            assert await actor.renew("worker-0", [result.key]) == []
            assert await actor.report_evaluation("worker-0", result) == "scored"
        assert await waiting == tuple(results)
        assert await actor.evaluate(0, items, deadline_s=50.0) == tuple(results)  # asked again
        late = asyncio.create_task(actor.evaluate(1, items[:1], deadline_s=50.0))
        await asyncio.sleep(0)
        place.clock.now_s += 60.0
        await actor.resume()  # every change is a look at the clock
        with pytest.raises(
            DeadlineExceeded, match="waited 50 s for evaluation 1: 0 of 1 items scored, 0 leased, 1 pending"
        ):
            await late

    tell(tmp_path, story)


def test_the_probe_is_asked_beside_groups_from_what_they_pay_and_does_not_enter_the_law(
    tmp_path: Path,
) -> None:
    questions = [Question("policy", (Message("user", text),), max_tokens=9) for text in "ab"]

    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        await place.train(actor, 1)
        assert await actor.probe(1, questions, deadline_s=0.0) == ProbeAnswers(1, (), 2)
        (group, *_) = await leases_of(actor, 4)
        waiting = asyncio.create_task(actor.lease("worker-0", 1, wait_s=50.0, holds_other_leases=True))
        await asyncio.sleep(0)
        paid = Delivered(place.scored(group), None, completion_tokens=200)
        (lease,) = (await actor.report("worker-0", [paid], 1)).leases + (await waiting).leases
        assert isinstance(lease, ProbeLease)
        assert await actor.renew("worker-0", [lease.key]) == []
        assert (await actor.status()).issued == 6
        answers = Answers((Answer("So.", "stop"),), "policy", 5, 2)
        result = ProbeResult(lease.key, answers, 1, 1)
        assert await actor.report_probe("worker-0", result) == "scored"
        assert await actor.probe(1, questions, deadline_s=0.0) == ProbeAnswers(1, (result,), 1)
        assert (await actor.status()).probe_tokens == 7
        waiting_for_all = asyncio.create_task(actor.probe(1, questions, deadline_s=50.0))
        await actor.report("worker-0", [Delivered(place.scored(group), None, completion_tokens=200)])
        (other,) = (await actor.lease("worker-0", 1, wait_s=0.0)).leases
        assert isinstance(other, ProbeLease)
        await actor.report_probe("worker-0", ProbeResult(other.key, None, 1, 2))
        assert (await waiting_for_all).missing == 0

    tell(tmp_path, story)


def test_nothing_is_leased_before_the_first_version_or_while_paused(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = LedgerActor(LedgerSpec(RUN, str(place.folder), 1, 0, prompts_count=3), place.clock)
        await actor.start()
        assert (await actor.lease("worker-0", 1, wait_s=0.0)).leases == ()
        assert not await actor.offer(version(3))
        assert (await actor.lease("worker-0", 1, wait_s=0.0)).leases == ()
        assert await actor.offer(version(0))
        await actor.pause()
        waiting = asyncio.create_task(actor.lease("worker-0", 1, wait_s=50.0))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await actor.resume()
        assert len((await waiting).leases) == 1

    tell(tmp_path, story)


def test_an_evaluation_goes_on_while_training_groups_are_held_back(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        await actor.pause()
        waiting = asyncio.create_task(actor.evaluate(0, [EvaluationItem(5, prompted=False)], deadline_s=50.0))
        await asyncio.sleep(0)
        (lease,) = (await actor.lease("worker-0", 3, wait_s=0.0)).leases
        assert isinstance(lease, EvaluationLease)
        await actor.report_evaluation("worker-0", EvaluationResult(lease.key, 2.0, 3, "So.", False, 9, 0, 0))
        assert [result.score for result in await waiting or ()] == [2.0]

    tell(tmp_path, story)


def test_a_report_brings_the_version_that_a_worker_waits_for_and_its_wait_goes_on(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        await place.score(actor, 2)
        await actor.take(1, deadline_s=0.0)
        waiting = asyncio.create_task(actor.wait_version("a", (1, 0), wait_s=50.0))
        await asyncio.sleep(0)
        await actor.commit(1, version(1))
        assert (await actor.report("a", [])).version is None, "it did not say what it knows"
        assert [(await actor.report("a", [], known=known)).version for known in ((1, 0), (1, 1))] == [
            version(1),
            None,
        ]
        answer = await actor.lease("b", 1, wait_s=0.0, known=(1, 0))
        assert (answer.version, [lease.version for lease in answer.leases]) == (version(1), [1])
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await actor.worker_left("a", died=False)
        waiting.cancel()

    tell(tmp_path, story)


def test_a_wait_that_is_cancelled_while_its_answer_comes_ends_one_way_or_the_other(tmp_path: Path) -> None:
    """A worker that leaves cancels its wait for a version; swallowed, that would leave it waiting for
    ever."""

    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        for step in range(1, 5):
            await place.score(actor, 2)
            await actor.take(step, deadline_s=0.0)
            waiting = asyncio.create_task(actor.wait_version("a", (1, step - 1), wait_s=50.0))
            await asyncio.sleep(0)
            await actor.commit(step, version(step))
            for _ in range(step - 1):
                await asyncio.sleep(0)
            if waiting.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            else:
                assert await waiting == version(step)

    tell(tmp_path, story)


def test_without_signal_a_step_takes_what_is_there_or_says_that_nothing_is(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        await place.score(actor, 4, "low_signal")
        with pytest.raises(NoSignal):
            await actor.take(1, deadline_s=50.0)
        assert await actor.take_present(1, 60.0) is None
        await actor.refill()
        (one,) = await place.score(actor, 1)
        await place.score(actor, 1, "unparsed")
        held = await leases_of(actor, 9)
        waiting = asyncio.create_task(actor.take_present(1, 60.0))
        for lease in held:
            assert await actor.withhold("worker-0", lease.key, "low_signal") == "withheld"
        batch = await waiting
        assert batch is not None
        assert batch.groups == (one,)
        assert (await actor.status()).withheld_by_reason == {"low_signal": 4 + len(held), "unparsed": 1}

    tell(tmp_path, story)


def test_an_error_in_the_passing_of_time_is_the_next_caller_s(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger()
        waiting = asyncio.create_task(actor.take(1, deadline_s=50.0))
        await asyncio.sleep(0)
        actor._ledger.state.trained += 1
        with pytest.raises(LedgerError, match="conservation law"):
            await waiting
        with pytest.raises(LedgerError, match="conservation law"):
            await actor.status()

    tell(tmp_path, story)


def test_an_operator_is_told_of_what_score_the_withheld_groups_of_a_step_are(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger(run=roomy)
        for scores in ((3.0, 3.0), (None, None), (2.5, 3.5)):
            (lease,) = await leases_of(actor, 1)
            group = place.scored(lease, "low_signal")
            said = [WithheldScores("p", each, None) for each in (scores, (0.0, 5.0))]
            again = [Delivered(group, None, each) for each in said]
            assert (await actor.report("worker-0", again)).outcomes == ("withheld", "repeated")
            low = 2.5 if scores == (2.5, 3.5) else 3.0
            assert (await actor.status()).withheld_scores[:1] == (low,)
        assert (await actor.status()).withheld_scores == (2.5, 3.5)
        await place.train(actor, 1)
        assert (await actor.status()).withheld_scores == ()

    algorithm = RUN.algorithm.model_copy(update={"max_refill": 4.0})
    roomy = RUN.model_copy(update={"algorithm": algorithm})
    tell(tmp_path, story)
