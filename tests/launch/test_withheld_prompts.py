"""What `poison.jsonl` says of a prompt that the ledger has withheld."""

from pathlib import Path

import pytest

from dynalign.launch.withheld_prompts import all_prompts, poisoned_prompt
from dynalign.rollout import added_prompts
from dynalign.rollout.added_prompts import AddedPrompts
from dynalign.rollout.ledger.evaluation_leases import PoisonedItem
from dynalign.rollout.ledger.log import LedgerLog
from dynalign.rollout.ledger.values import Break, PromptChange
from dynalign.rollout.prompts import Prompt, PromptSet
from dynalign.run_folder import layout
from dynalign.run_folder.poison import PoisonedPrompt, append, read_poison

PROMPTS = PromptSet(
    (Prompt("t0", "Why?", "daily", "train"), Prompt("t1", "Tie a knot.", "daily", "train")),
    (Prompt("h0", "How?", "daily", "heldout"),),
)


def test_a_withheld_group_is_kept_with_its_prompt_and_the_workers_that_it_broke(tmp_path: Path) -> None:
    broken = Break(52, 3, 1, prompt_index=1, workers=("a", "b", "c"), poison=True)
    kept = poisoned_prompt(broken, PROMPTS, now_s=9.0)
    assert kept == PoisonedPrompt(1, "t1", "train", "Tie a knot.", ("a", "b", "c"), 9.0, 52, 3, 1)
    append(tmp_path, [kept])
    assert read_poison(tmp_path) == [kept]


def test_a_withheld_held_out_prompt_has_no_group(tmp_path: Path) -> None:
    kept = poisoned_prompt(PoisonedItem(0, ("a",)), PROMPTS, now_s=9.0)
    assert kept == PoisonedPrompt(0, "h0", "heldout", "How?", ("a",), 9.0)


def test_a_prompt_that_came_to_the_run_later_is_found_by_its_position(tmp_path: Path) -> None:
    new = Prompt("refresh-1-p0", "New?", "daily", "train")
    content_hash = added_prompts.write(tmp_path, AddedPrompts("", "", "refreshes/refresh-1", (new,), (0,)))
    line = PromptChange(1, 4, content_hash, first_draw=9, added=1, dropped=(0,))
    LedgerLog(tmp_path / layout.LEDGER_LOG).append(line, durable=True)
    broken = Break(52, 3, 1, prompt_index=2, workers=("a",), poison=True)
    every = all_prompts(tmp_path, PROMPTS, [broken])
    assert every == PromptSet((*PROMPTS.train, new), PROMPTS.heldout)
    assert poisoned_prompt(broken, every, now_s=9.0).prompt == "New?"


@pytest.mark.parametrize("content", [None, b"no log"])
def test_a_text_that_cannot_be_read_is_left_out_and_ends_nothing(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / layout.LEDGER_LOG).write_bytes(content)
    broken = Break(52, 3, 1, prompt_index=2, workers=("a",), poison=True)
    every = all_prompts(tmp_path, PROMPTS, [broken])
    kept = poisoned_prompt(broken, every, now_s=9.0)
    assert (every, kept.prompt_index, kept.prompt) == (PROMPTS, 2, "")


def test_the_log_is_read_only_for_prompts_that_came_later(tmp_path: Path) -> None:
    early = Break(52, 3, 1, prompt_index=1, workers=("a",), poison=True)
    assert all_prompts(tmp_path / "nowhere", PROMPTS, [early, PoisonedItem(0, ("a",))]) is PROMPTS
