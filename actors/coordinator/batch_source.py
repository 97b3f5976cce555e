"""Where the loop gets its batches: the ledger, and what happens when a step's groups have no signal."""

import logging
import time
from collections.abc import Sequence

from dynalign.actors.coordinator.loop_controls import LoopControls, LoopProgress
from dynalign.actors.ledger.ledger_spec import Batch
from dynalign.actors.ledger.protocol import LedgerCalls
from dynalign.configs.errors import NoSignal, RunFailed
from dynalign.configs.schema import RunSettings
from dynalign.rollout.ledger.values import JUDGE_UNREACHABLE, REPLACED

logger = logging.getLogger(__name__)

MOST_REFILLS = 10
"""Refills of one step under `algorithm.on_no_signal=warn`. Scores that stay equal over so many draws have
collapsed, and one more draw would not help."""


class BatchSource:
    """`wait_s`: seconds that the last batch was waited for."""

    def __init__(
        self, run: RunSettings, ledger: LedgerCalls, controls: LoopControls, now: LoopProgress
    ) -> None:
        self._run = run
        self._ledger = ledger
        self._controls = controls
        self._now = now
        self.wait_s = 0.0

    async def take(self, step: int) -> Batch:
        """The batch of `step`, or what there is of it where its groups have no signal (`on_no_signal`)."""
        await self._controls.until_running()
        started_s = time.monotonic()
        refills = 0
        batch: Batch | None = None
        while batch is None:
            self._now.phase = f"waiting for the batch of step {step}"
            try:
                batch = await self._controls.or_stop(self._ledger.take(step, self._run.deadlines.batch_s))
            except NoSignal as no_signal:
                batch = await self._without_signal(step, no_signal, refills)
                if batch is None:
                    refills += 1
                    await self._ledger.refill()
        self.wait_s = time.monotonic() - started_s
        if refills:
            self._now.notice = ""
        return batch

    async def _without_signal(self, step: int, no_signal: NoSignal, refills: int) -> Batch | None:
        """What `algorithm.on_no_signal` asks for: a batch that is not full, or None to draw another refill.

        Raises RunFailed for `stop`, and for `warn` once a step had MOST_REFILLS refills.
        """
        action = self._run.algorithm.on_no_signal
        told = await self._about_signal(no_signal, refills)
        if action == "stop":
            raise RunFailed(f"{told}; algorithm.on_no_signal=stop")
        logger.warning(told)
        self._now.notice = told
        if action == "pause":
            self._controls.pause()
            self._now.phase = f"paused: {told}; resume it, or stop it and change the rubric or the prompts"
            await self._controls.until_running()
            return None
        batch = await self._controls.or_stop(self._ledger.take_present(step, self._run.deadlines.batch_s))
        if batch is None and refills >= MOST_REFILLS:
            remedy = "change the rubric, the judge or the prompts"
            if JUDGE_UNREACHABLE in dict(no_signal.reasons):
                remedy = "the workers' log says why the judge cannot be reached; see to it, and run it again"
            raise RunFailed(f"{told}; {remedy}")
        return batch

    async def _about_signal(self, no_signal: NoSignal, refills: int) -> str:
        """The step, its refills, of what score its groups are, and why groups of this run were withheld."""
        status = await self._ledger.status()
        reasons = status.withheld_by_reason
        counts = ", ".join(f"{reason} {reasons[reason]}" for reason in sorted(REPLACED & reasons.keys()))
        scored = (
            f"; their candidates scored {_range(status.withheld_scores)}" if status.withheld_scores else ""
        )
        return f"{no_signal}, after {refills} refills{scored} (withheld so far: {counts or 'none'})"


def _range(scores: Sequence[float]) -> str:
    """`3.00 points, all of them`, or `2.90 to 3.10 points`. scores: the lowest and the highest."""
    low = min(scores)
    high = max(scores)
    return f"{low:.2f} points, all of them" if low == high else f"{low:.2f} to {high:.2f} points"
