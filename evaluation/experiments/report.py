"""The report of an experiment as data: from the plan and the runs' figures to tables and sentences, and JSON.

It is made anew from the runs' files whenever it is asked for, and holds what there is so far.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dynalign.evaluation.experiments.comparison import ByArm, MeasureTable, measure_table
from dynalign.evaluation.experiments.conclusion import conclusion, lift_sentences, progress
from dynalign.evaluation.experiments.plan import Cost, ExperimentPlan
from dynalign.evaluation.experiments.run_figures import RunFigures
from dynalign.evaluation.experiments.transfer import (
    TransferFigures,
    transfer_figures,
    transfer_sentences,
)

FORMAT = "dynalign.experiment-report/1"


@dataclass(frozen=True)
class ExperimentReport:
    """An experiment as far as it has come: `ExperimentReport(plan, cost, runs, primary, (…,), ("…",))`."""

    plan: ExperimentPlan
    """What was declared."""
    cost: Cost
    """What it costs, by what is known now."""
    runs: ByArm
    """Arm → its runs, by seed."""
    primary: MeasureTable
    """What the conclusion stands on."""
    secondary: tuple[MeasureTable, ...]
    """What is reported beside it, where some run has it."""
    sentences: tuple[str, ...]
    """The conclusion."""
    transfer: TransferFigures | None = None
    """Gains and gaps of the sets of prompts, for the experiment of that name."""

    @property
    def every_run(self) -> list[RunFigures]:
        """All runs, in the order of the arms."""
        return [run for arm in self.plan.design.arms for run in self.runs[arm.name]]

    @property
    def finished(self) -> bool:
        """Whether every run has finished."""
        return all(run.outcome.state == "finished" for run in self.every_run)


def make_report(plan: ExperimentPlan, cost: Cost, runs: Sequence[RunFigures]) -> ExperimentReport:
    """The report on the runs of a plan. Differences by the primary measure have the plan's margin; others
    have none, and so no verdict `no worse`."""
    design = plan.design
    by_arm = {arm.name: [run for run in runs if run.arm == arm.name] for arm in design.arms}
    primary = measure_table(design, by_arm, design.primary, plan.margin)
    beside = [measure_table(design, by_arm, name, None) for name in design.secondary]
    shown = tuple(table for table in beside if table.levels)
    speed = next((table for table in shown if table.measure.name == "step_s"), None)
    if not design.compared:
        transfer = transfer_figures(by_arm[design.baseline])
        said = (*progress(by_arm), *transfer_sentences(transfer, plan.margin))
        return ExperimentReport(plan, cost, by_arm, primary, shown, said, transfer)
    sentences = conclusion(design, by_arm, primary, plan.margin, speed)
    lifts = next((table for table in shown if table.measure.name == "bias_lift"), None)
    if lifts is not None:
        sentences += lift_sentences(design, lifts)
    return ExperimentReport(plan, cost, by_arm, primary, shown, tuple(sentences))


def as_json(report: ExperimentReport) -> str:
    """`report.json`: all figures, and what they were computed from."""
    plan = report.plan
    content = {
        "format": FORMAT,
        "plan": plan.hash,
        "experiment": plan.design.experiment,
        "question": plan.design.question,
        "config": plan.config,
        "seeds": list(plan.seeds),
        "baseline": plan.design.baseline,
        "margin": plan.margin,
        "finished": report.finished,
        "conclusion": list(report.sentences),
        "measures": [_table(table) for table in (report.primary, *report.secondary)],
        "variances": measured_variances(report),
        "transfer": None if report.transfer is None else asdict(report.transfer),
        "cost": asdict(report.cost),
        "runs": [_run(run) for run in report.every_run],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def measured_variances(report: ExperimentReport) -> dict[str, float] | None:
    """The mean over arms of the variances of the primary differences, for the plan of another experiment."""
    found = [
        each.found.components
        for each in report.primary.differences
        if each.found is not None and each.found.components is not None
    ]
    if not found:
        return None
    return {
        "seeds": sum(each.seeds for each in found) / len(found),
        "prompts": sum(each.prompts for each in found) / len(found),
        "rest": sum(each.rest for each in found) / len(found),
    }


def _table(table: MeasureTable) -> dict[str, Any]:
    differences = []
    for each in table.differences:
        found = None
        if each.found is not None:
            found = asdict(each.found) | {"low": each.found.estimate.low, "high": each.found.estimate.high}
        differences.append(asdict(each) | {"found": found})
    return {
        "measure": asdict(table.measure),
        "levels": {arm: asdict(level) for arm, level in table.levels.items()},
        "differences": differences,
        "baseline gain": table.baseline_gain,
    }


def _run(run: RunFigures) -> Mapping[str, Any]:
    return {
        "arm": run.arm,
        "seed": run.seed,
        "outcome": asdict(run.outcome),
        "values": dict(run.values),
        "by prompt": {name: dict(points) for name, points in run.by_prompt.items()},
        "curve": [list(point) for point in run.curve],
        "gold": [list(point) for point in run.gold],
        "distance": {str(step): value for step, value in run.distance.items()},
        "alarms": [list(alarm) for alarm in run.alarms],
    }
