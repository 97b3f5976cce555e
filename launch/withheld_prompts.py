"""What `poison.jsonl` says of a prompt that the ledger has withheld."""

from dynalign.rollout.ledger.evaluation_leases import PoisonedItem
from dynalign.rollout.ledger.values import Break
from dynalign.rollout.prompts import PromptSet
from dynalign.run_folder.poison import PoisonedPrompt


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
