"""New prompts come to a run between two steps: durable, once, and never a reason for its end."""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dynalign.configs.errors import RecordError
from dynalign.rollout import added_prompts
from dynalign.rollout.added_prompts import AddedPrompts
from dynalign.rollout.ledger.log import read
from dynalign.rollout.ledger.restore import prompt_changes
from dynalign.rollout.ledger.values import PromptChange
from dynalign.rollout.prompts import Prompt, PromptOrder
from dynalign.run_folder import layout, requests
from dynalign.run_folder.events import read_events
from tests.worlds.ledger_actor_world import RUN, LedgerFolder, leases_of, tell, version

NEW = tuple(Prompt(f"refresh-1-p{place}", f"New task {place}?", "food", "train") for place in range(2))
SET = AddedPrompts("", "", "refreshes/refresh-1", NEW, dropped=(0, 1))
"""For a run with three prompts, of which one stays."""


def asked(folder: Path, added: AddedPrompts = SET) -> str:
    content_hash = added_prompts.write(folder, added)
    requests.leave_prompts(folder, content_hash)
    return content_hash


def changes(folder: Path) -> tuple[PromptChange, ...]:
    return prompt_changes(read(folder / layout.LEDGER_LOG))


def told(folder: Path) -> list[str]:
    return [f"{event.what}: {event.detail}" for event in read_events(folder)]


def test_prompts_are_taken_at_the_end_of_a_step_and_leases_carry_them(tmp_path: Path) -> None:
    async def story(run: LedgerFolder) -> None:
        actor = await run.ledger()
        content_hash = asked(tmp_path)
        await run.score(actor, 2)
        assert requests.waiting_prompts(tmp_path) == content_hash
        await actor.take(1, deadline_s=0.0)
        await actor.commit(1, version(1))
        assert requests.waiting_prompts(tmp_path) is None
        assert changes(tmp_path) == (PromptChange(1, 1, content_hash, 2, 2, (0, 1)),)
        assert told(tmp_path) == [
            "takes prompts: 2 added, 2 dropped, from draw 2 on: refreshes/refresh-1",
        ]
        leases = [*await leases_of(actor, 2), *await leases_of(actor, 2)]
        order = PromptOrder(3, RUN.seed, tuple(each.of_order for each in changes(tmp_path)))
        assert [lease.prompt_index for lease in leases] == [order.at(draw).index for draw in range(2, 6)]
        assert {lease.prompt_index for lease in leases[:3]} == {2, 3, 4}
        assert {lease.prompt_index: lease.added for lease in leases} == {2: None, 3: NEW[0], 4: NEW[1]}

    tell(tmp_path, story)


def test_a_run_that_goes_on_takes_what_was_asked_for_meanwhile(tmp_path: Path) -> None:
    async def story(run: LedgerFolder) -> None:
        await run.train(await run.ledger(), 1)
        content_hash = asked(tmp_path)
        actor = await run.ledger()
        assert [change.content_hash for change in changes(tmp_path)] == [content_hash]
        assert {lease.prompt_index for lease in await leases_of(actor, 3)} == {2, 3, 4}

    tell(tmp_path, story)


def test_a_ledger_that_dies_after_its_line_takes_the_prompts_once(tmp_path: Path) -> None:
    async def story(run: LedgerFolder) -> None:
        asked(tmp_path)
        await run.ledger()
        taken = changes(tmp_path)
        asked(tmp_path)  # it died before it removed the request
        actor = await run.ledger()
        assert changes(tmp_path) == taken
        assert requests.waiting_prompts(tmp_path) is None
        assert [lease.added for lease in await leases_of(actor, 3) if lease.prompt_index == 4] == [NEW[1]]

    tell(tmp_path, story)


def test_a_disk_that_is_full_leaves_the_request_for_the_next_step(tmp_path: Path) -> None:
    async def story(run: LedgerFolder) -> None:
        synced = iter([None, None, OSError(28, "No space left on device")])

        def fsync(descriptor: int) -> None:
            """The opening and the first commit reach the disk, the line of the prompts does not."""
            if (error := next(synced, None)) is not None:
                raise error

        actor = await run.ledger(fsync=fsync)
        content_hash = asked(tmp_path)
        await run.train(actor, 1)
        assert (changes(tmp_path), requests.waiting_prompts(tmp_path)) == ((), content_hash)
        assert told(tmp_path) == ["cannot be taken now: OSError: [Errno 28] No space left on device"]
        await run.train(actor, 2)
        assert [change.step for change in changes(tmp_path)] == [2]

    tell(tmp_path, story)


def foreign(folder: Path) -> str:
    return added_prompts.write(folder, replace(SET, prompts_hash="f" * 16))


def late(folder: Path) -> str:
    return added_prompts.write(folder, replace(SET, after="e" * 16))


def gone(folder: Path) -> str:
    content_hash = added_prompts.write(folder, SET)
    layout.added_prompts_file(folder, content_hash).unlink()
    return content_hash


def damaged(folder: Path) -> str:
    content_hash = added_prompts.write(folder, SET)
    with layout.added_prompts_file(folder, content_hash).open("ab") as file:
        file.write(b"x")
    return content_hash


def leaves_none(folder: Path) -> str:
    return added_prompts.write(folder, replace(SET, prompts=(), dropped=(0, 1, 2)))


def drops_unknown(folder: Path) -> str:
    return added_prompts.write(folder, replace(SET, dropped=(7,)))


def no_prompt(folder: Path) -> str:
    return added_prompts.write(folder, replace(SET, prompts=(Prompt("a", " ", "", "train"),)))


BAD: dict[Callable[[Path], str], str] = {
    foreign: "made for a run with other prompts",
    late: "has taken other prompts since",
    gone: "cannot be read",
    damaged: "is damaged",
    leaves_none: "cannot be changed",
    drops_unknown: "cannot be changed",
    no_prompt: "a prompt is empty",
    lambda folder: "": "'' is not the hash of a set of prompts",
    lambda folder: "01234567": "'01234567' is not the hash",
    lambda folder: "../../../etc/passwd": "is not the hash",
    lambda folder: "\0\ufffd" * 40: "is not the hash",
}


@pytest.mark.parametrize(("request_of", "why"), BAD.items())
def test_a_request_that_cannot_be_followed_is_set_aside_and_the_run_goes_on(
    tmp_path: Path, request_of: Callable[[Path], str], why: str
) -> None:
    async def story(run: LedgerFolder) -> None:
        actor = await run.ledger()
        requests.leave_prompts(tmp_path, request_of(tmp_path))
        await run.train(actor, 1)
        assert requests.waiting_prompts(tmp_path) is None
        assert changes(tmp_path) == ()
        (line,) = told(tmp_path)
        assert line.startswith("refuses prompts: ")
        assert why in line
        await run.train(actor, 2)

    tell(tmp_path, story)


def test_a_run_that_was_mirrored_finds_its_prompts_in_the_checkpoint(tmp_path: Path) -> None:
    async def story(run: LedgerFolder) -> None:
        actor = await run.ledger()
        content_hash = asked(tmp_path)
        await run.train(actor, 1)
        taken = changes(tmp_path)
        await run.checkpoint(actor, 1)
        (tmp_path / layout.LEDGER_LOG).unlink()
        shutil.rmtree(tmp_path / layout.ADDED_PROMPTS)
        actor = await run.ledger(step=1)
        assert changes(tmp_path) == taken
        assert added_prompts.read(tmp_path, content_hash) == SET
        assert {lease.added for lease in await leases_of(actor, 3)} == {None, *NEW}

    tell(tmp_path, story)


def test_a_run_whose_taken_prompts_are_gone_does_not_go_on_with_others(tmp_path: Path) -> None:
    async def story(run: LedgerFolder) -> None:
        content_hash = asked(tmp_path)
        await run.ledger()
        layout.added_prompts_file(tmp_path, content_hash).unlink()
        with pytest.raises(RecordError, match="put the file back"):
            await run.ledger()

    asyncio.run(story(LedgerFolder(tmp_path)))
