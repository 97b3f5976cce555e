"""One row of `metrics.jsonl` from what the learner, the ledger, and the workers say about a step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from dynalign.learner.score_health import advantage_reliability
from dynalign.rollout.ledger.values import LACKS_SIGNAL
from dynalign.run_folder.heldout import HeldoutItem, oldest_version, reward_mean
from dynalign.run_folder.metric_names import METRIC_NAMES
from dynalign.run_folder.run_status import JudgeCost

_TERMS = ("issued", "pending", "leased", "scored", "trained", "withheld", "requeued", "late", "rolled_back")


@dataclass(frozen=True)
class WorkerTotals:
    """What each worker has done since it started (`RolloutWorker.stats`), by name."""

    by_name: Mapping[str, Mapping[str, Any]]

    def gained(self, key: str, before: "WorkerTotals") -> list[float]:
        """Each worker's gain since `before`; a worker that was not there then began at 0."""
        return [now[key] - before.by_name.get(name, {key: 0})[key] for name, now in self.by_name.items()]

    @property
    def judging(self) -> JudgeCost:
        """What all judges of all workers have cost."""
        costs = (JudgeCost(**each) for now in self.by_name.values() for each in now["judges"].values())
        return sum(costs, JudgeCost())


def step_row(
    step: int,
    lineage: int,
    learned: Mapping[str, Any],
    ledger_before: Mapping[str, Any],
    ledger: Mapping[str, Any],
    before: WorkerTotals,
    after: WorkerTotals,
    heldout: Sequence[HeldoutItem],
) -> dict[str, Any]:
    """The row; a name that nothing is known about (yet) is left out, which makes it null."""
    row: dict[str, Any] = {name: value for name, value in learned.items() if name in METRIC_NAMES}
    row |= {name: ledger[name] for name in _TERMS}
    row |= {
        "step": step,
        "lineage": lineage,
        "policy_version": step,
        "heldout_reward_mean": reward_mean(heldout, prompted=False),
        "heldout_prompted_reward_mean": reward_mean(heldout, prompted=True),
        "heldout_version_min": oldest_version(heldout),
        "workers": len(after.by_name),
    }
    if not learned:
        return row
    row["no_signal_fraction"] = _no_signal_fraction(ledger_before, ledger)
    row["advantage_reliability"] = advantage_reliability(
        learned.get("score_variance_within"), learned.get("judge_noise_std"), row["no_signal_fraction"]
    )
    row["unreadable_fraction"] = _unreadable_fraction(learned.get("unparsed_fraction"), ledger_before, ledger)
    row["straggler_wait_s"] = ledger["straggler_wait_s"] - ledger_before["straggler_wait_s"]
    for name, total in (("capability_tokens", "probe_tokens"), ("evaluation_tokens", "heldout_tokens")):
        if ledger[total]:
            was = ledger_before[total]
            # A ledger that was restarted counts from 0 again.
            row[name] = ledger[total] - (was if was <= ledger[total] else 0)
    step_s = learned["step_s"]
    if after.by_name:
        row |= {
            "generate_tokens_per_s": sum(after.gained("completion_tokens_total", before)) / step_s,
            "judgements_per_s": sum(after.gained("judgements_total", before)) / step_s,
            "generate_s": fmean(after.gained("generate_s", before)),
            "score_s": fmean(after.gained("score_s", before)),
            "rollout_idle_fraction": min(1.0, fmean(after.gained("idle_s", before)) / step_s),
            "weight_sync_pause_s": fmean(after.gained("weight_sync_pause_s", before)),
        }
        row |= _judging(before, after)
    return row


def _judging(before: WorkerTotals, after: WorkerTotals) -> dict[str, float | int | None]:
    """What judging has cost since `before`, over the workers that are there now."""
    stayed = {name: totals for name, totals in before.by_name.items() if name in after.by_name}
    was = WorkerTotals(stayed).judging
    now = after.judging
    questions = now.questions - was.questions
    tokens = now.prompt_tokens + now.completion_tokens - was.prompt_tokens - was.completion_tokens
    return {
        "unreachable_fraction": (now.failed - was.failed) / questions if questions else None,
        "judge_tokens": tokens,
        "judge_money": None if now.money is None else now.money - (was.money or 0.0),
    }


def _no_signal_fraction(before: Mapping[str, Any], after: Mapping[str, Any]) -> float | None:
    """Share of the groups settled since `before` that lacked signal; None when none was."""
    lacking = sum(_withheld(reason, before, after) for reason in LACKS_SIGNAL)
    trained = after["trained"] - before["trained"]
    return lacking / (lacking + trained) if lacking + trained else None


def _unreadable_fraction(
    unparsed_fraction: float | None, before: Mapping[str, Any], after: Mapping[str, Any]
) -> float | None:
    """Share of unreadable verdicts among the groups settled since `before`. Of a group withheld as unparsed
    all count: how many they were is not recorded, and none of them is trained. None when no group was
    settled."""
    withheld = _withheld("unparsed", before, after)
    trained = after["trained"] - before["trained"]
    if not withheld + trained or (trained and unparsed_fraction is None):
        return None
    return float((withheld + trained * (unparsed_fraction or 0.0)) / (withheld + trained))


def _withheld(reason: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """Groups withheld for a reason since `before`."""
    gained: int = after["withheld_by_reason"].get(reason, 0) - before["withheld_by_reason"].get(reason, 0)
    return gained
