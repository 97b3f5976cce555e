"""`withheld.jsonl` says what the ledger has withheld: after a commit, at the end, and after every opening."""

from pathlib import Path

import pytest

from dynalign.actors.ledger.ledger_actor import LedgerActor
from dynalign.rollout.ledger.values import Delivered, WithheldScores
from dynalign.run_folder import layout, withheld_groups
from dynalign.run_folder.withheld_groups import WithheldGroup
from tests.worlds.ledger_actor_world import RUN, LedgerFolder, leases_of, tell, version

ROOMY = RUN.model_copy(update={"algorithm": RUN.algorithm.model_copy(update={"max_refill": 4.0})})
SAID = WithheldScores("p-0", (3.0, None, 3.0), 0.25)


async def withhold(place: LedgerFolder, actor: LedgerActor) -> int:
    """A worker reports a group without signal; its id."""
    (lease,) = await leases_of(actor, 1)
    group = place.scored(lease, "low_signal")
    assert (await actor.report("worker-0", [Delivered(group, None, SAID)])).outcomes == ("withheld",)
    return group.group_id


def shown(folder: Path) -> list[tuple[int, str, int, int]]:
    """(group, reason, step, lineage) of each line."""
    return [(each.group_id, each.reason, each.step, each.lineage) for each in withheld_groups.read(folder)]


def test_a_withheld_group_stands_there_from_its_commit_on_with_what_its_worker_said(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger(run=ROOMY)
        group_id = await withhold(place, actor)
        assert withheld_groups.read(tmp_path) == []
        await place.train(actor, 1)
        await actor.commit(1, version(1))  # repeated, it tells nothing twice
        (line,) = withheld_groups.read(tmp_path)
        assert (line.group_id, line.reason, line.step, line.lineage) == (group_id, "low_signal", 1, 1)
        assert (line.worker, line.attempt, line.prompt_id) == ("worker-0", 1, "p-0")
        assert (line.scores_G, line.noise_std) == (SAID.scores_G, 0.25)
        assert 0 <= line.prompt_index < 3

    tell(tmp_path, story)


def test_what_is_left_at_the_end_stands_there_too(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger(run=ROOMY)
        await place.train(actor, 1)
        withheld = await withhold(place, actor)
        (lease,) = await leases_of(actor, 1)
        await actor.end()
        await actor.end()
        assert shown(tmp_path) == [(withheld, "low_signal", 1, 1), (lease.group_id, "run_ended", 1, 1)]
        assert [each.worker for each in withheld_groups.read(tmp_path)] == ["worker-0", None]

    tell(tmp_path, story)


def test_a_rolled_back_step_takes_its_lines_along_and_a_lost_file_is_made_anew(tmp_path: Path) -> None:
    async def story(place: LedgerFolder) -> None:
        first = await place.ledger(run=ROOMY)
        early = await withhold(place, first)
        await place.train(first, 1)
        await place.checkpoint(first, 1)
        late = await withhold(place, first)
        await place.train(first, 2)
        assert [each[0] for each in shown(tmp_path)] == [early, late]
        line = withheld_groups.read(tmp_path)[0]

        place.owner.new_lineage(now_s=2.0)
        await place.ledger(step=1, run=ROOMY)
        assert withheld_groups.read(tmp_path) == [line]

        (tmp_path / layout.WITHHELD).unlink()  # as a run has it that an earlier version began
        place.owner.new_lineage(now_s=3.0)
        await place.ledger(step=1, run=ROOMY)
        assert shown(tmp_path) == [(early, "low_signal", 1, 3)]

    tell(tmp_path, story)


@pytest.mark.parametrize("damage", [b"{\n", b'{"format": 7}\n', b"[]\n"])
def test_a_file_that_cannot_be_read_is_written_anew_and_ends_nothing(tmp_path: Path, damage: bytes) -> None:
    async def story(place: LedgerFolder) -> None:
        first = await place.ledger(run=ROOMY)
        early = await withhold(place, first)
        await place.train(first, 1)
        await place.checkpoint(first, 1)
        (tmp_path / layout.WITHHELD).write_bytes(damage)
        place.owner.new_lineage(now_s=2.0)
        await place.ledger(step=1, run=ROOMY)
        assert shown(tmp_path) == [(early, "low_signal", 1, 2)]

    tell(tmp_path, story)


def test_a_disk_that_takes_no_line_holds_up_no_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / layout.WITHHELD).mkdir(parents=True)

    async def story(place: LedgerFolder) -> None:
        actor = await place.ledger(run=ROOMY)
        await withhold(place, actor)
        await place.train(actor, 1)
        assert (await actor.status()).committed_step == 1

    tell(tmp_path, story)
    assert "withheld.jsonl cannot be written" in capsys.readouterr().err


def test_a_torn_last_line_is_not_read_and_a_ledger_that_opens_takes_it_away(tmp_path: Path) -> None:
    group = WithheldGroup(5, "poison", 4, 3, 2, 0, 1.0)
    withheld_groups.append(tmp_path, [group])
    with (tmp_path / layout.WITHHELD).open("ab") as file:
        file.write(b'{"format": 1, "group')
    assert withheld_groups.read(tmp_path) == [group]

    async def story(place: LedgerFolder) -> None:
        await place.ledger(run=ROOMY)
        assert (tmp_path / layout.WITHHELD).read_bytes() == b""

    tell(tmp_path, story)
