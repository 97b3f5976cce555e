"""What `poison.jsonl` says of a prompt that the ledger has withheld."""

import logging
from collections.abc import Iterable
from pathlib import Path

from dynalign.actors.supervision.departures import Poisoned
from dynalign.configs.errors import DynalignError, one_line
from dynalign.rollout import added_prompts
from dynalign.rollout.ledger.evaluation_leases import PoisonedItem
from dynalign.rollout.ledger.log import read
from dynalign.rollout.ledger.restore import prompt_changes
from dynalign.rollout.ledger.values import Break
from dynalign.rollout.prompts import Prompt, PromptSet
from dynalign.run_folder import layout
from dynalign.run_folder.poison import PoisonedPrompt

logger = logging.getLogger(__name__)

UNKNOWN = Prompt("", "", "", "train")
"""A prompt that the run has taken and whose file cannot be read."""


def all_prompts(run_folder: Path, prompts: PromptSet, poisoned: Iterable[Poisoned]) -> PromptSet:
    """prompts: those with which the run began; if a withheld one is none of them, those that it has taken
    since follow. What cannot be read is a warning: the file that they are for only informs."""
    if all(isinstance(each, PoisonedItem) or each.prompt_index < len(prompts.train) for each in poisoned):
        return prompts
    try:
        taken = [change.content_hash for change in prompt_changes(read(run_folder / layout.LEDGER_LOG))]
        added = added_prompts.read_all(run_folder, taken)
    except (OSError, DynalignError) as error:
        logger.warning("the text of a withheld prompt is not known: %s", one_line(error))
        return prompts
    return PromptSet((*prompts.train, *added), prompts.heldout)


def poisoned_prompt(poisoned: Poisoned, prompts: PromptSet, now_s: float) -> PoisonedPrompt:
    """For inspection: the prompt of a withheld group or held-out item, and the workers that it broke."""
    index = poisoned.prompt_index
    workers = poisoned.workers
    if isinstance(poisoned, Break):
        prompt = prompts.train[index] if index < len(prompts.train) else UNKNOWN
        group = (poisoned.group_id, poisoned.attempt, poisoned.lineage)
        return PoisonedPrompt(index, prompt.id, prompt.split, prompt.prompt, workers, now_s, *group)
    prompt = prompts.heldout[index]
    return PoisonedPrompt(index, prompt.id, prompt.split, prompt.prompt, workers, now_s)
