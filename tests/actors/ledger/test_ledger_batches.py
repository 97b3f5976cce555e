"""Several groups in one call are as many calls one after the other, in the ledger, its log and its
answers."""

import asyncio
import tempfile
from pathlib import Path
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from dynalign.actors.ledger.ledger_actor import LedgerActor
from dynalign.configs.sections.algorithm import AlgorithmSettings
from dynalign.configs.sections.rollout import RolloutSettings
from dynalign.rollout.ledger.values import Delivered, GroupKey, Lease, ReportOutcome, ScoredGroup
from dynalign.run_folder.spool import SpoolEntry
from tests.worlds.ledger_actor_world import RUN, LedgerFolder, leases_of, report

WIDE = RUN.model_copy(
    update={
        "rollout": RolloutSettings(prompts_per_step=6),
        "algorithm": AlgorithmSettings(max_staleness=1, max_refill=0.5),
    }
)

Told = tuple[list[ReportOutcome], list[GroupKey], bytes, bytes, list[object]]


def story_of(seed: int) -> tuple[list[int], list[ScoredGroup], int]:
    """What is leased before, what is reported at once (scored, dull, repeated, late), and how many leases are
    wanted then."""
    random, made = Random(seed), []
    for group_id in range(random.randint(1, 9)):
        reason = random.choice([None, None, None, "low_signal", "refused"])
        stale = random.random() < 0.15
        made.append(
            ScoredGroup(
                group_id, 1 + stale, 1, SpoolEntry(f"group-{group_id}-1-1.arrow", 1, "0"), 0, 0, reason
            )
        )
    made += random.sample(made, random.randint(0, len(made)))
    random.shuffle(made)
    return [random.randint(1, 3) for _ in range(4)], made, random.randint(0, 5)


async def tell(folder: Path, seed: int, batched: bool) -> Told:
    place = LedgerFolder(folder)
    actor: LedgerActor = await place.ledger(run=WIDE)
    before, made, wanted = story_of(seed)
    for number, groups in enumerate(before):
        await leases_of(actor, groups, f"worker-{number}")
    if batched:
        answer = await actor.report(
            "worker-0",
            [Delivered(group, f"handle {group.key}") for group in made],
            wanted,
            holds_other_leases=False,
        )
        outcomes, leases = list(answer.outcomes), list(answer.leases)
    else:
        outcomes = [await report(actor, group, f"handle {group.key}") for group in made]
        leases = (await actor.lease("worker-0", wanted, wait_s=0.0)).leases
    keys = [lease.key for lease in leases if isinstance(lease, Lease)]
    log = (folder / "ledger.log").read_bytes()
    return outcomes, keys, await actor.snapshot(), log, sorted(actor._files._handles.items())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_batched_report_is_the_sequence_of_single_ones_and_then_a_lease(seed: int) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        assert asyncio.run(tell(Path(one), seed, batched=True)) == asyncio.run(
            tell(Path(other), seed, batched=False)
        )
