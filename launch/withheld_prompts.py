"""What `poison.jsonl` says of a prompt that the ledger has withheld."""

from pathlib import Path

from dynalign.rollout import added_prompts
from dynalign.rollout.ledger.evaluation_leases import PoisonedItem
from dynalign.rollout.ledger.log import read
from dynalign.rollout.ledger.restore import prompt_changes
from dynalign.rollout.ledger.values import Break
from dynalign.rollout.prompts import PromptSet
from dynalign.run_folder import layout
from dynalign.run_folder.poison import PoisonedPrompt


def all_prompts(run_folder: Path, prompts: PromptSet) -> PromptSet:
    """prompts: those with which the run began; those that it has taken since follow. Raises RecordError."""
    taken = [change.content_hash for change in prompt_changes(read(run_folder / layout.LEDGER_LOG))]
    added = added_prompts.read_all(run_folder, taken)
    return PromptSet((*prompts.train, *added), prompts.heldout)


def poisoned_prompt(poisoned: Break | PoisonedItem, prompts: PromptSet, now_s: float) -> PoisonedPrompt:
    """For inspection: the prompt of a withheld group or held-out item, and the workers that it broke."""
    index = poisoned.prompt_index
    workers = poisoned.workers
    if isinstance(poisoned, Break):
        prompt = prompts.train[index]
        group = (poisoned.group_id, poisoned.attempt, poisoned.lineage)
        return PoisonedPrompt(index, prompt.id, prompt.split, prompt.prompt, workers, now_s, *group)
    prompt = prompts.heldout[index]
    return PoisonedPrompt(index, prompt.id, prompt.split, prompt.prompt, workers, now_s)
