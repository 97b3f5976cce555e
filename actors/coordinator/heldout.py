"""Held-out evaluation from the coordinator's side: when training waits for one, and what one beside the
groups has brought.

    before step 1, after the last   waited for: all answers are of that policy
    between, heldout.waits=true     the same, every `every_steps`
    between, heldout.waits=false    opened after step k, a multiple of every_steps, unless one is open; looked
                                    at after each step; its figure is that of the step w after which it was
                                    complete, and is of versions k to w

A run that would stop since the reward rises no more, by a figure of several versions, is evaluated once more
and waited for: that figure decides, and is one of the last policy.

Which evaluation is open follows from the ledger and from `heldout.jsonl` alone, so that a coordinator that
takes another one's place goes on with it.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from dynalign.actors.ledger.protocol import LedgerCalls
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.convergence import ConvergenceSettings
from dynalign.rollout.ledger.evaluation_leases import EvaluationItem, EvaluationResult
from dynalign.rollout.prompts import PromptSet
from dynalign.run_folder.heldout import HeldoutItem, reward_by_step

logger = logging.getLogger(__name__)


class HeldoutEvaluation:
    """Prompts and seeds are the same at every evaluation, so that differences between steps are the policy's.

    known: what `heldout.jsonl` holds of the history that leads to this run's weights.
    """

    def __init__(
        self,
        run: RunSettings,
        prompts: PromptSet,
        lineage: int,
        ledger: LedgerCalls,
        known: Sequence[HeldoutItem],
    ) -> None:
        self._run = run
        self._prompts = prompts
        self._lineage = lineage
        self._ledger = ledger
        chosen = range(min(run.heldout.prompts, len(prompts.heldout)))
        self._items = [
            EvaluationItem(index, prompted)
            for prompted in ((False, True) if run.heldout.prompted else (False,))
            for index in chosen
        ]
        self._figures: dict[int, list[HeldoutItem]] = {}
        self._told_late: int | None = None
        for item in known:
            self._figures.setdefault(item.step, []).append(item)

    def due(self, step: int) -> bool:
        """Whether training waits for an evaluation after `step`."""
        settings = self._run.heldout
        if not self._items:
            return False
        if step in (0, self._run.steps):
            return True
        if settings.waits:
            return step % settings.every_steps == 0
        return self._rises_no_more() and self._several_versions(step)

    async def ask(self, step: int) -> list[HeldoutItem]:
        """Answers of the policy of `step`, waited for. Raises DeadlineExceeded without them."""
        results = await self._ledger.evaluate(step, self._items, self._run.deadlines.batch_s)
        assert results is not None  # it waits
        return self._keep(step, results)

    async def look(self, step: int, evaluation: int | None) -> list[HeldoutItem]:
        """What has been answered beside the groups, if it is complete with `step`; opens the next evaluation
        where it is time. evaluation: the newest one that the ledger knows."""
        every = self._run.heldout.every_steps
        if self._run.heldout.waits or not self._items or step in (0, self._run.steps):
            return []
        complete = self._complete_already(step)
        if not complete:
            self._figures.pop(step, None)  # its writer died over it
        if not complete and evaluation is not None and not self._closed(evaluation):
            results = await self._ledger.evaluate(evaluation, self._items, 0.0)
            if results is None:
                self._say_late(step, evaluation)
                return []
            complete = self._keep(step, results)
        begins = step - step % every
        if begins and not self._closed(begins):
            await self._ledger.evaluate(step, self._items, 0.0)
        return complete

    def converged(self) -> bool:
        """Whether the held-out reward rises no more, by a newest figure of one version."""
        return self._rises_no_more() and not self._several_versions(max(self._figures))

    def _rises_no_more(self) -> bool:
        rewards = reward_by_step([item for figure in self._figures.values() for item in figure])
        return converged(self._run.convergence, list(rewards.values()))

    def _complete_already(self, step: int) -> list[HeldoutItem]:
        """A coordinator that died between the answers and the row has left the row to this one."""
        there = self._figures.get(step, [])
        if len(there) < len(self._items):
            return []
        return [replace(item, lineage=self._lineage) for item in there]

    def _closed(self, begun: int) -> bool:
        """Whether the evaluation that began with step `begun` is over: a later figure is there, or one of
        that step which is not an earlier evaluation's."""
        later = any(step > begun for step in self._figures)
        return later or (begun in self._figures and not self._several_versions(begun))

    def _several_versions(self, step: int) -> bool:
        oldest = (item.version_min for item in self._figures.get(step, ()))
        return any(version is not None and version < step for version in oldest)

    def _keep(self, step: int, results: Sequence[EvaluationResult]) -> list[HeldoutItem]:
        items = [self._item(step, result) for result in results]
        self._figures[step] = items
        return items

    def _item(self, step: int, result: EvaluationResult) -> HeldoutItem:
        asked = self._items[result.item]
        prompt = self._prompts.heldout[asked.prompt_index]
        return HeldoutItem(
            step=step,
            lineage=self._lineage,
            prompt_id=prompt.id,
            prompt=prompt.prompt,
            prompted=asked.prompted,
            score=result.score,
            completion=result.completion,
            completion_tokens=result.completion_tokens,
            truncated=result.truncated,
            version_min=result.version_min,
            version_max=result.version_max,
        )

    def _say_late(self, step: int, evaluation: int) -> None:
        if step - evaluation < self._run.heldout.every_steps or self._told_late == evaluation:
            return
        self._told_late = evaluation
        logger.warning(
            "the held-out evaluation that began with step %d is not complete after step %d, so the next one "
            "begins later: set heldout.every_steps higher, heldout.prompts lower, or heldout.waits=true",
            evaluation,
            step,
        )


def converged(settings: ConvergenceSettings | None, rewards: Sequence[float]) -> bool:
    """Whether the plain held-out reward rose by less than `min_delta` over the last `window` evaluations.

    rewards: the mean reward of each evaluation without the system prompt, in points of 5, oldest first.
    """
    if settings is None or len(rewards) <= settings.window:
        return False
    recent = rewards[-settings.window - 1 :]
    return max(recent[1:]) - recent[0] < settings.min_delta
