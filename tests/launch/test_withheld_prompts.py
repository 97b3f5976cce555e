"""What `poison.jsonl` says of a prompt that the ledger has withheld."""

from pathlib import Path

from dynalign.launch.withheld_prompts import poisoned_prompt
from dynalign.rollout.ledger.evaluation_leases import PoisonedItem
from dynalign.rollout.ledger.values import Break
from dynalign.rollout.prompts import Prompt, PromptSet
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
