"""Every alert rule: promtool drives it to fire by what it is about, and nothing else fires; a healthy run
is silent.

Series are written as promtool reads them: `5+1x130` is 5, 6, 7, … one value a minute; `_` is no value.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml

from dynalign.actors.coordinator.exported_metrics import EXPORTED
from dynalign.actors.coordinator.exported_samples import STATES
from dynalign.configs.sections.alarms import AlarmsSettings
from tests.worlds.prometheus_tools import MONITORING, rules, tool

MINUTES = 130
RUN = 'instance="i",job="dynalign",run="r"'
Series = dict[str, str]


def flat(value: float) -> str:
    return f"{value}x{MINUTES}"


def name(metric: str, **labels: str) -> str:
    pairs = [RUN, *(f'{key}="{value}"' for key, value in labels.items())]
    return f"{metric}{{{','.join(pairs)}}}"


def one(metric: str, values: str | float, **labels: str) -> Series:
    return {name(f"dynalign_{metric}", **labels): values if isinstance(values, str) else flat(values)}


def states(state: str) -> Series:
    return {
        series: value
        for each in STATES
        for series, value in one("run_state", float(each == state), state=each).items()
    }


def healthy() -> Series:
    """Two steps a minute, four groups a step, of 10,000 steps; one worker of two was replaced once, an hour
    ago."""
    ages = {
        "last_step_timestamp_seconds": f"0+60x{MINUTES}",
        "run_started_timestamp_seconds": 0.0,
        "look_timestamp_seconds": f"0+60x{MINUTES}",
    }
    step = {
        "step": f"0+2x{MINUTES}",
        "steps_wanted": 10_000.0,
        "step_seconds": 30.0,
        "staleness_mean": 0.6,
        "staleness_bound": 1.0,
    }
    law = {"groups_issued_total": f"8+9x{MINUTES}", "groups_trained_total": f"0+8x{MINUTES}"}
    flight = {"groups_pending": 2.0, "groups_leased": 3.0, "groups_scored": 3.0}
    judge: dict[str, str | float] = {"score_saturation_fraction": 0.1, "logprob_mismatch_mean": 0.035}
    judge |= {f"alarm_{name}": 0.0 for name in AlarmsSettings.model_fields}
    disk = {"run_folder_free_bytes": 5e11, "run_folder_size_bytes": 1e12, "checkpoint_failures_total": 0.0}
    disk |= {
        "checkpoint_step": f"0+2x{MINUTES}",
        "mirror_step": f"0+2x{MINUTES}",
        "mirror_failures_total": 0.0,
    }
    pool = {"learner_wait_fraction": 0.1, "workers_wanted": 2.0, "weight_sync_failures_total": 0.0}
    plain = ages | step | law | flight | judge | disk | pool
    found = states("running") | {name("up"): flat(1)}
    for metric, values in plain.items():
        found |= one(metric, values)
    found |= one("groups_withheld_total", f"0+1x{MINUTES}", reason="low_signal") | one(
        "groups_withheld_total", 0.0, reason="unparsed"
    )
    found |= one("workers", 2.0, state="serving") | one("workers", 0.0, state="placing")
    found |= one("restarts_total", f"0x70 1x{MINUTES - 71}", kind="worker", cause="died")
    return (
        found
        | one("restarts_total", 0.0, kind="learner", cause="died")
        | one("restarts_total", 0.0, kind="ledger", cause="died")
    )


@dataclass(frozen=True)
class Case:
    """changed: on top of the healthy run; a series without values is not there. at: minutes at which
    exactly `fires` fire."""

    about: str
    changed: Series
    fires: tuple[str, ...] = ()
    at: int = 125


NO_SIGNAL = one("groups_withheld_total", f"0+9x{MINUTES}", reason="low_signal") | one(
    "groups_trained_total", 0.0
)
GONE = {series: f"{value.split('x')[0]}x90 stale" for series, value in healthy().items()}
STARTING = dict.fromkeys(healthy(), "") | states("starting") | one("run_started_timestamp_seconds", 0.0)
SYNCHRONOUS = one("staleness_bound", 0.0) | one("staleness_mean", 0.0)
STANDS_SINCE_90 = f"0+60x90 5400x{MINUTES}"
STANDS = one("last_step_timestamp_seconds", STANDS_SINCE_90)
SLOW = STANDS | one("step_seconds", 600.0)

CASES = (
    Case("a healthy run", {}),
    Case("a run that has just been started", STARTING, at=9),
    Case("no first step for ten minutes", STARTING, ("DynalignNoStep",), at=11),
    Case("the last step was nine minutes ago", STANDS, at=99),
    Case("the last step was eleven minutes ago", STANDS, ("DynalignNoStep",), at=101),
    Case("steps take ten minutes by themselves", SLOW, at=110),
    Case("even for steps of ten minutes it is long", SLOW, ("DynalignNoStep",), at=121),
    Case("a run that is paused makes no step", STANDS | states("paused"), ("DynalignPaused",)),
    Case("a pause of ten minutes", states("paused"), at=10),
    Case("all tokens are as old as allowed", one("staleness_mean", 0.95), ("DynalignStalenessAtBound",)),
    Case("synchronous training has age 0", SYNCHRONOUS),
    Case("the learner waits for most of the step",
         one("learner_wait_fraction", 0.8), ("DynalignLearnerStarved",)),
    Case("on one shared device it waits by design", one("learner_wait_fraction", 0.8) | SYNCHRONOUS),
    Case("the disk has 8 % left", one("run_folder_free_bytes", 8e10), ("DynalignDiskNearlyFull",)),
    Case("a checkpoint failed half an hour ago",
         one("checkpoint_failures_total", f"0x95 1x{MINUTES}"), ("DynalignCheckpointFailing",)),
    Case("a step was not finite half an hour ago", one("steps_skipped_total", f"0x95 1x{MINUTES}"),
         ("DynalignStepNotFinite",)),
    Case("a checkpoint failed two hours ago", one("checkpoint_failures_total", f"0x50 1x{MINUTES}")),
    Case("the mirror refuses every copy",
         one("mirror_failures_total", f"0x60 1+1x{MINUTES}") | one("mirror_step", ""),
         ("DynalignMirrorBehind",)),
    Case("the mirror refused one copy", one("mirror_failures_total", f"0x90 1x{MINUTES}")),
    Case("a copy hangs", one("mirror_step", f"0+2x60 120x{MINUTES}"), ("DynalignMirrorBehind",)),
    Case("there is no mirror", one("mirror_step", "") | one("mirror_failures_total", "")),
    Case("nine of ten groups have no signal", NO_SIGNAL, ("DynalignNoSignal",)),
    Case("all scores are 5", one("score_saturation_fraction", 0.97), ("DynalignNoSignal",)),
    Case("a reward function raises for some candidates",
         one("worker_judge_failures_total", f"0x110 1+1x{MINUTES}", worker="rollout-0"),
         ("DynalignJudgeFunctionFails",)),
    Case("a reward function never fails", one("worker_judge_failures_total", 0.0, worker="rollout-0")),
    Case("a judge's endpoint is away",
         one("worker_judge_failed_calls_total", f"0x60 0+3x{MINUTES}", worker="rollout-0", judge="big")
         | one("worker_judge_questions_total", f"0+3x{MINUTES + 60}", worker="rollout-0", judge="big"),
         ("DynalignJudgeUnreachable",)),
    Case("one call in a hundred to a judge fails",
         one("worker_judge_failed_calls_total", f"0+1x{MINUTES + 60}", worker="rollout-0", judge="big")
         | one("worker_judge_questions_total", f"0+100x{MINUTES + 60}", worker="rollout-0", judge="big")),
    Case("the engine holds other weights",
         one("logprob_mismatch_mean", 0.6), ("DynalignEngineLearnerMismatch",)),
    Case("a worker dies every six minutes",
         one("restarts_total", f"0x100 1x5 2x5 3x5 4x{MINUTES}", kind="worker", cause="died"),
         ("DynalignWorkerFlapping",)),
    Case("two workers died of different causes",
         one("restarts_total", f"0x100 1x{MINUTES}", kind="worker", cause="died")
         | one("restarts_total", f"0x100 1x{MINUTES}", kind="worker", cause="hung")),
    Case("the learner was restarted twice in an hour",
         one("restarts_total", f"0x90 1x10 2x{MINUTES}", kind="learner", cause="died"),
         ("DynalignCoreRestarting",)),
    Case("the learner was restarted once",
         one("restarts_total", f"0x90 1x{MINUTES}", kind="learner", cause="died")),
    Case("a worker finds no room", one("workers", 1.0, state="serving"), ("DynalignWorkersMissing",)),
    Case("a worker is being replaced", one("workers", f"2x120 1x{MINUTES}", state="serving")),
    Case("two versions could not be loaded",
         one("weight_sync_failures_total", f"0x105 1x5 2x{MINUTES}"), ("DynalignWeightSyncFailing",)),
    Case("one version could not be loaded", one("weight_sync_failures_total", f"0x105 1x{MINUTES}")),
    Case("a group is lost", one("groups_leased", 2.0), ("DynalignLawBroken",)),
    Case("the driver hangs", one("look_timestamp_seconds", STANDS_SINCE_90), ("DynalignSupervisionSilent",)),
    Case("the run was killed", GONE | {name("up"): f"1x90 0x{MINUTES}"}, ("DynalignEndpointDown",)),
    Case("its pod is gone", GONE, ("DynalignRunVanished",)),
    Case("it has ended",
         GONE | states("stopping") | {name("dynalign_run_state", state="stopping"): "1x90 stale"}
         | {name("dynalign_run_state", state="running"): "0x90 stale"}),
    Case("its last step was the last thing heard of it", GONE | one("steps_wanted", "180x90 stale")),
    *(
        Case(f"the run's alarm {name} fires", one(f"alarm_{name}", 1.0),
             (f"Dynalign{name.title().replace('_', '')}",))
        for name in AlarmsSettings.model_fields
    ),
    Case("its alarms know nothing", dict.fromkeys(
        (series for name in AlarmsSettings.model_fields for series in one(f"alarm_{name}", "")), "")),
    Case("it goes on elsewhere",
         GONE | {series.replace('"i"', '"j"'): value for series, value in healthy().items()}),
)  # fmt: skip


def test_every_rule_says_what_to_do_in_words_that_name_existing_metrics() -> None:
    known = {each.full_name for each in EXPORTED}
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "runbook"}
        assert rule["annotations"]["runbook"].endswith(".")
        assert set(re.findall(r"dynalign_\w+", rule["expr"])) <= known, rule["alert"]


def test_every_rule_is_driven_to_fire() -> None:
    assert {alert for case in CASES for alert in case.fires} == {rule["alert"] for rule in rules()}


def test_each_story_fires_its_alerts_and_no_other(tmp_path: Path) -> None:
    tests = []
    for case in CASES:
        series = {key: values for key, values in (healthy() | case.changed).items() if values}
        expected = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in case.fires]
        firing = 'count by (alertname) (ALERTS{alertstate="firing"} == 1)'
        tests.append(
            {
                "name": case.about,
                "interval": "1m",
                "input_series": [{"series": key, "values": values} for key, values in series.items()],
                "promql_expr_test": [{"expr": firing, "eval_time": f"{case.at}m", "exp_samples": expected}],
            }
        )
    file = tmp_path / "alerts.yaml"
    whole = {"rule_files": [str(MONITORING / "rules.yaml")], "evaluation_interval": "1m", "tests": tests}
    file.write_text(yaml.safe_dump(whole, sort_keys=False))
    ended = subprocess.run(
        [tool("promtool"), "test", "rules", str(file)], capture_output=True, text=True, timeout=280
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
