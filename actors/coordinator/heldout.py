"""Held-out evaluation from the coordinator's side: its leases, their answers, and whether the reward still
rises."""

from collections.abc import Sequence

from dynalign.actors.ledger.protocol import LedgerCalls
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.convergence import ConvergenceSettings
from dynalign.rollout.ledger.evaluation_leases import EvaluationItem
from dynalign.rollout.prompts import PromptSet
from dynalign.run_folder.heldout import HeldoutItem


async def evaluate(
    run: RunSettings, prompts: PromptSet, ledger: LedgerCalls, step: int, lineage: int
) -> list[HeldoutItem]:
    """The first `heldout.prompts` held-out prompts, answered by the policy of `step` without the system
    prompt, and with it if `heldout.prompted`.

    Prompts and seeds are the same at every evaluation, so that differences between steps are the policy's.
    """
    chosen = range(min(run.heldout.prompts, len(prompts.heldout)))
    items = [
        EvaluationItem(index, prompted)
        for prompted in ((False, True) if run.heldout.prompted else (False,))
        for index in chosen
    ]
    results = await ledger.evaluate(step, items, run.deadlines.batch_s)
    return [
        HeldoutItem(
            step=step,
            lineage=lineage,
            prompt_id=prompts.heldout[items[result.item].prompt_index].id,
            prompt=prompts.heldout[items[result.item].prompt_index].prompt,
            prompted=items[result.item].prompted,
            score=result.score,
            completion=result.completion,
            completion_tokens=result.completion_tokens,
            truncated=result.truncated,
        )
        for result in results
    ]


def converged(settings: ConvergenceSettings | None, rewards: Sequence[float]) -> bool:
    """Whether the plain held-out reward rose by less than `min_delta` over the last `window` evaluations.

    rewards: the mean reward of each evaluation without the system prompt, in points of 5, oldest first.
    """
    if settings is None or len(rewards) <= settings.window:
        return False
    recent = rewards[-settings.window - 1 :]
    return max(recent[1:]) - recent[0] < settings.min_delta
