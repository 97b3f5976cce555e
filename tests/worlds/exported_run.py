"""The real Prometheus endpoint of a run, fed with synthetic metrics and with made-up states of its actors."""

import random
from pathlib import Path
from typing import Any

from dynalign.actors.coordinator.exporter import Exporter
from dynalign.configs.schema import RunSettings
from dynalign.configs.sections.alarms import AlarmsSettings
from dynalign.run_folder.metric_names import METRIC_NAMES
from dynalign.run_folder.run_status import SupervisionStatus
from tests.worlds.synthetic_run import group, row


def settings(**changed: Any) -> RunSettings:
    return RunSettings.model_validate({"name": "synthetic", "model": "tiny", "steps": 12} | changed)


def ledger(step: int, **changed: Any) -> dict[str, Any]:
    """A result of `LedgerActor.status` that keeps the conservation law, with four groups trained a step."""
    terms = {
        "issued": 4 * step + 8,
        "pending": 1,
        "leased": 2,
        "scored": 3,
        "trained": 4 * step,
        "withheld": 2,
    }
    beside = {
        "requeued": 1,
        "late": 0,
        "rolled_back": 0,
        "committed_step": step,
        "capacity": 2,
        "oldest_lease_age_s": 3.5,
    }
    return terms | beside | {"withheld_by_reason": {"low_signal": 2}, "waiting_reason": ""} | changed


def worker(name: str = "rollout-0", state: str = "serving", step: int = 0) -> dict[str, Any]:
    totals = {
        "completion_tokens_total": 900 * step,
        "judgements_total": 32 * step,
        "judge_failures_total": step,
        "generate_s": 6.0 * step,
        "score_s": 2.0 * step,
    }
    sync = {
        "weight_sync_s": 0.4 * step,
        "weight_sync_pause_s": 0.2 * step,
        "weight_syncs": step,
        "weight_fallbacks": 0,
    }
    cost = {"questions": 32 * step, "failed": step, "prompt_tokens": 9000 * step, "seconds": 2.5 * step}
    judges = {"gpt-oss": cost | {"completion_tokens": 32 * step, "money": 0.01 * step}}
    return (
        {"name": name, "state": state, "version": step, "groups_in_flight": 2, "idle_s": 1.0 * step}
        | totals
        | sync
        | {"judges": judges}
    )


def supervised(step: int = 0, wanted: int = 2, **changed: Any) -> SupervisionStatus:
    """As `Supervisor.report` says it."""
    report = {
        "workers": [worker(step=step), worker("rollout-1", step=step)],
        "workers_wanted": wanted,
        "why_wanted": "rollout.workers",
    }
    mirror = {"address": "s3://bucket/run", "step": 2, "problem": "", "failures": 0}
    endpoint = {
        "name": "big",
        "questions_in_flight": 2,
        "questions_total": 90 * step,
        "failures_total": step,
        "tokens_total": 9_000 * step,
        "cost_total": 0.01 * step,
        "tokens_per_s": 300.0,
    }
    beside = {"restarts": {"worker/died": 1}, "sync_failures": 0, "mirror": mirror}
    beside |= {"engines": [{"name": "judge-0", "state": "serving"}], "endpoints": [endpoint]}
    return SupervisionStatus.from_json(report | beside | changed)


def whole_row(step: int, **changed: Any) -> dict[str, Any]:
    rng = random.Random(step)
    measured = row(rng, step, [group(rng, step, index, 1.7 + 0.02 * step) for index in range(4)])
    measured |= {
        "kl": 0.01,
        "clip_low_fraction": 0.0,
        "clip_high_fraction": 0.0,
        "effective_sample_size": 1.0,
        "logprob_mismatch_mean": 0.03,
        "aspect_spread": 0.4,
        "second_judge_gap": 0.1,
        "second_judge_rank_correlation": 0.7,
        "self_bias_correlation": 0.05,
        "capability_change": -0.01,
        "capability_change_se": 0.02,
        "capability_tokens": 9000,
        "evaluation_tokens": 4000,
        "score_position_correlation": -0.1,
        "unreachable_fraction": 0.01,
        "judge_tokens": 90_000,
        "judge_money": 0.02,
    }
    measured |= {f"alarm_{name}": 0 for name in AlarmsSettings.model_fields}
    return dict.fromkeys(METRIC_NAMES) | measured | {"lineage": 1, "trained": 4 * step} | changed


def tell_step(exporter: Exporter, step: int) -> None:
    """The calls of a coordinator from one commit to the next."""
    exporter.trained([0, 1, 1, 0])
    heldout = {
        "heldout_reward_mean": 1.7,
        "heldout_prompted_reward_mean": 1.9,
        "heldout_version_min": step - 3,
    }
    heldout = heldout if step % 5 == 0 else {}
    exporter.row(whole_row(step, frozen_judge_reward_mean=1.6, **heldout))
    exporter.look(
        "running",
        ledger(step),
        supervised(step, wanted=2 + step // 3 % 3, why_wanted="the learner starves: waited 30%"),
    )


def tell_start(exporter: Exporter) -> None:
    """The calls of a coordinator before the first step."""
    exporter.look("starting", {}, None)
    exporter.look("running", ledger(0), supervised())
    exporter.row(
        dict.fromkeys(METRIC_NAMES) | {"step": 0, "lineage": 1, "trained": 0, "heldout_reward_mean": 1.5}
    )


def tell_all(exporter: Exporter, steps: int = 3) -> None:
    tell_start(exporter)
    for step in range(1, steps + 1):
        tell_step(exporter, step)
    exporter.checkpoint_failed()
    exporter.checkpointed(steps)


def exporter(folder: Path, **changed: Any) -> Exporter:
    """An endpoint on a free port, of a run in `folder/runs`."""
    run = settings(**changed)
    run_folder = folder / "runs" / run.name
    run_folder.mkdir(parents=True, exist_ok=True)
    return Exporter(run, run_folder, lineage=1, node_address="127.0.0.1")
