"""The capability probe from the coordinator's side: which point is open, its answers, and what they say.

    point 0      asked before step 1, and waited for: the policy is the initial one only until then
    point k      opened after step k, a multiple of every_steps, unless it is the last; looked at after each
                 step, waited for never; closed with its last answer, or after step k + every_steps, or the
                 run's last one, with what is there
                 with placement.mode=shared, where engines and learner take turns: asked after step k, and
                 waited for

So every answer of point k is of a version from k to k + every_steps. Which point is open follows from the
step and from `capability.jsonl` alone: a coordinator that takes another one's place goes on with it.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import NamedTuple

from dynalign.actors.ledger.protocol import LedgerCalls
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.capability import LEAST_ITEMS
from dynalign.evaluation.suites.probe import ProbeDraw, ProbeItems, capability_change
from dynalign.rollout.ledger.probe_leases import ProbeAnswers, ProbeResult
from dynalign.run_folder.capability import BEFORE_TRAINING, CapabilityItem, scores_of_items
from dynalign.run_folder.metrics import MetricsLog

logger = logging.getLogger(__name__)


class CapabilityPoint(NamedTuple):
    """What the items of one point have in common, as in `CapabilityItem`."""

    step: int
    closed_step: int
    lineage: int
    of_items: int


class CapabilityProbe:
    """lineage, step: where its coordinator begins. draw: the items; None without a probe. points: what
    `capability.jsonl` holds, by step."""

    def __init__(
        self,
        run: RunSettings,
        lineage: int,
        step: int,
        ledger: LedgerCalls,
        log: MetricsLog,
        draw: ProbeDraw | None,
        points: Mapping[int, list[CapabilityItem]],
    ) -> None:
        self._run = run
        self._lineage = lineage
        self._ledger = ledger
        self._log = log
        self._draw = draw
        self._takes_turns = run.placement.mode == "shared"
        self._opened: ProbeItems | None = None
        self._points = {
            # What another lineage has closed after this step was rolled back.
            point: items
            for point, items in points.items()
            if point == BEFORE_TRAINING or items[0].closed_step <= step or items[0].lineage == lineage
        }

    def lacks_initial(self, step: int) -> bool:
        """Whether the initial policy is still to be asked, which it can be at step 0 alone."""
        return self._draw is not None and step == BEFORE_TRAINING and BEFORE_TRAINING not in self._points

    def waited_for(self, step: int) -> bool:
        """Whether training waits for the point of `step`."""
        if self._draw is None or not self._takes_turns:
            return self.lacks_initial(step)
        begins = step % self._run.capability.every_steps == 0
        return begins and step < self._run.steps and step not in self._points

    async def ask(self, step: int) -> None:
        """The answers of the policy of `step`, waited for. Raises DeadlineExceeded without them."""
        items = await self._items()
        answers = await self._ledger.probe(step, items.questions, self._run.deadlines.batch_s)
        await self._keep(answers, step)

    async def look(self, step: int) -> Mapping[str, float]:
        """Closes a point and opens the next where it is time. Returns the columns of the step's row: those of
        the point that ends with this step, else none."""
        if self._draw is None:
            return {}
        if self._takes_turns:
            return self._columns(step, step)
        every = self._run.capability.every_steps
        begins = step % every == 0
        columns = await self._closed(step - every if begins else step - step % every, step)
        if begins and BEFORE_TRAINING < step < self._run.steps:
            await self._ledger.probe(step, (await self._items()).questions, 0.0)
        return columns

    async def _closed(self, point: int, step: int) -> Mapping[str, float]:
        if point <= BEFORE_TRAINING:
            return {}
        if point not in self._points:
            answers = await self._ledger.probe(point, (await self._items()).questions, 0.0)
            last = step in (point + self._run.capability.every_steps, self._run.steps)
            if answers.missing and not last:
                return {}
            await self._keep(answers, step)
        return self._columns(point, step)

    def _columns(self, point: int, step: int) -> Mapping[str, float]:
        """The change of a point that was closed after `step`; none of another one, nor of the initial one."""
        # A coordinator that died between point and row has left the row to this one.
        if point <= BEFORE_TRAINING or point not in self._points:
            return {}
        if self._points[point][0].closed_step != step:
            return {}
        now = scores_of_items(self._points[point])
        change = capability_change(scores_of_items(self._points.get(BEFORE_TRAINING, ())), now)
        if change is None:
            few = (
                "the capability probe of step %d has %d answers; to compare, %d of the same items are needed"
            )
            logger.warning(f"{few}: set capability.every_steps higher", point, len(now), LEAST_ITEMS)
            return {}
        return change.columns()

    async def _items(self) -> ProbeItems:
        assert self._draw is not None
        if self._opened is None:
            self._opened = await asyncio.to_thread(self._draw.open)
        return self._opened

    async def _keep(self, answers: ProbeAnswers, step: int) -> None:
        """Grades a point and writes it. step: after which it is closed."""
        items = await self._items()
        results = {result.item: result for result in answers.results}
        given = [results.get(place) for place in range(len(items.names))]
        scores = await asyncio.to_thread(
            items.scores, [None if result is None else result.answers for result in given]
        )
        point = CapabilityPoint(answers.probe, step, self._lineage, len(items.names))
        found = [
            _item(point, name, score, result)
            for name, score, result in zip(items.names, scores, given, strict=True)
        ]
        self._log.write_capability(found)
        self._points[answers.probe] = found


def _item(
    point: CapabilityPoint, name: str, score: float | None, result: ProbeResult | None
) -> CapabilityItem:
    answers = None if result is None else result.answers
    return CapabilityItem(
        *point,
        item=name,
        score=score,
        answer=None if answers is None else answers.answers_N[0].text,
        tokens=0 if result is None else result.tokens,
        version_min=point.step if result is None else result.version_min,
        version_max=point.step if result is None else result.version_max,
    )
