"""The report of an experiment as tables and in Markdown, which its page and its file both show."""

from collections.abc import Iterator

from dynalign.evaluation.experiments.comparison import ArmDifference, MeasureTable
from dynalign.evaluation.experiments.conclusion import signed
from dynalign.evaluation.experiments.measures import MEASURES
from dynalign.evaluation.experiments.report import ExperimentReport
from dynalign.evaluation.experiments.transfer import TransferFigures
from dynalign.evaluation.statistics.estimates import Estimate
from dynalign.launch.report.figures import ABSENT, figure
from dynalign.launch.report.judge_tables import CardTable, cell_text, table_lines
from dynalign.launch.summary import duration


def experiment_facts(report: ExperimentReport) -> list[tuple[str, str]]:
    """What was declared, by name."""
    plan = report.plan
    hours = report.cost.hours
    finished = sum(run.outcome.state == "finished" for run in report.every_run)
    return [
        ("configuration", plan.config),
        ("plan", plan.hash),
        ("runs", f"{finished} of {report.cost.runs} finished"),
        ("seeds", ", ".join(map(str, plan.seeds))),
        ("held-out prompts", f"{plan.prompts:,}"),
        ("margin", f"{plan.margin:g} {MEASURES[plan.design.primary].unit}"),
        ("smallest visible difference", f"{plan.visible:.2f} ({plan.assumed_from} variances)"),
        ("hours, one after the other", ABSENT if hours is None else f"{hours:.1f}"),
    ]


def tables(report: ExperimentReport) -> Iterator[CardTable]:
    """The arms, what they differ by, what is reported beside it, and the runs."""
    yield _arms(report)
    yield difference_table(report, report.primary)
    if report.transfer is not None:
        yield _transfer(report.transfer)
    if report.secondary:
        yield _beside(report)
    for table in report.secondary:
        if table.measure.by_prompt:
            yield difference_table(report, table)
    if any(run.gold for run in report.every_run):
        yield gold_table(report)
    if any(run.alarms for run in report.every_run):
        yield _alarms(report)
    yield _runs(report)


def _arms(report: ExperimentReport) -> CardTable:
    design = report.plan.design
    rows = tuple(
        (arm.name, arm.title, arm.words() + (" (baseline)" if arm.name == design.baseline else ""))
        for arm in design.arms
    )
    return CardTable("Arms", ("arm", "what it is", "settings"), rows, "Settings of each arm's runs.", True)


def difference_table(report: ExperimentReport, table: MeasureTable) -> CardTable:
    """Each arm less the baseline, with its level."""
    design = report.plan.design
    rows = []
    for arm in design.arms:
        found = table.of(arm.name)
        level = table.levels.get(arm.name)
        if found is None:
            rows.append((arm.title, level_text(level), "baseline", ABSENT, ABSENT))
            continue
        difference = signed(found.found.estimate) if found.found is not None else found.lacking
        rows.append((arm.title, level_text(level), difference, _p(found.p), word_of(table, found)))
    caption = (
        f"{_capital(table.measure.source)}. Level: mean over runs, 95 % interval over seeds. Difference: "
        "paired by seed, and by prompt where there is one per prompt, 95 % interval over both; p after Holm."
    )
    head = ("arm", f"level, {table.measure.unit}", "less the baseline", "p", "verdict")
    return CardTable(_capital(table.measure.title), head, tuple(rows), caption, True)


def word_of(table: MeasureTable, found: ArmDifference) -> str:
    """The verdict in words; of a measure without a better direction, whether it is higher or lower."""
    if table.measure.better != "neither" or found.verdict not in ("better", "worse"):
        return found.verdict
    return "higher" if found.verdict == "better" else "lower"


def _beside(report: ExperimentReport) -> CardTable:
    design = report.plan.design
    rows = []
    for table in report.secondary:
        cells = []
        for arm in design.arms:
            found = table.of(arm.name)
            mark = "" if found is None or found.verdict == "inconclusive" else f", {word_of(table, found)}"
            level = table.levels.get(arm.name)
            cells.append(ABSENT if level is None else f"{figure(level.mean)}{mark}")
        rows.append((f"{table.measure.title}, {table.measure.unit}", *cells))
    caption = (
        "Mean over runs. A word says that the difference to the baseline is not zero, at 5 % after Holm over "
        "the arms; measures are not corrected for one another."
    )
    return CardTable(
        "Beside it", ("measure", *(arm.title for arm in design.arms)), tuple(rows), caption, True
    )


def _transfer(figures: TransferFigures) -> CardTable:
    rows = []
    for each in (*figures.sets, *figures.gaps):
        found = each.gain
        gain = ABSENT if found is None else signed(found.estimate)
        prompts = ABSENT if found is None or not found.prompts else f"{found.prompts:,}"
        rows.append((each.name, gain, ABSENT if found is None else str(found.seeds), prompts))
    caption = (
        "Gain: reward at the end less that before training, by the judge of the run, with a 95 % interval "
        "over seeds and prompts. A gap is paired by seed; the sets have different prompts."
    )
    return CardTable("Gains and gaps", ("set", "points", "seeds", "prompts"), tuple(rows), caption, True)


def gold_table(report: ExperimentReport) -> CardTable:
    """Proxy and gold over the distance from the initial policy (Gao et al. 2022, arXiv 2210.10760)."""
    rows = []
    for arm in report.plan.design.arms:
        runs = [run for run in report.runs[arm.name] if run.gold]
        for step in sorted({step for run in runs for step, _ in run.gold}):
            values = (
                [run.distance[step] for run in runs if step in run.distance],
                [points for run in runs for at, points in run.curve if at == step],
                [points for run in runs for at, points in run.gold if at == step],
            )
            cells = (ABSENT if not each else f"{sum(each) / len(each):.3f}" for each in values)
            rows.append((arm.title, str(step), *cells))
    caption = (
        "Held-out answers without the system prompt: mean score by the run's own judge and by the third one, "
        "over seeds. A reward that rises by the own judge alone, at a growing distance, is gamed."
    )
    head = ("arm", "step", "√KL, √nats", "own judge (proxy)", "third judge (gold)")
    return CardTable("Proxy and gold over the distance", head, tuple(rows), caption, True)


def _alarms(report: ExperimentReport) -> CardTable:
    rows = []
    for arm in report.plan.design.arms:
        fired: dict[str, list[int]] = {}
        for run in report.runs[arm.name]:
            for name, step in run.alarms:
                fired.setdefault(name, []).append(step)
        words = "; ".join(
            f"{name} in {len(steps)} of {len(report.runs[arm.name])} runs, first at step {min(steps)}"
            for name, steps in fired.items()
        )
        rows.append((arm.title, words or "none"))
    return CardTable("Alarms", ("arm", "alarms that fired"), tuple(rows), "From metrics.jsonl.", True)


def _runs(report: ExperimentReport) -> CardTable:
    rows = []
    for run in report.every_run:
        outcome = run.outcome
        wall = ABSENT if outcome.wall_s is None else duration(outcome.wall_s)
        reward = run.curve[-1][1] if run.curve else None
        first = run.curve[0][1] if run.curve else None
        change = ABSENT if reward is None or first is None else f"{first:.2f} → {reward:.2f}"
        rows.append((f"{run.arm}-s{run.seed}", outcome.state, str(outcome.step), wall, change, outcome.said))
    head = ("run", "state", "steps", "time", "held-out reward", "why it failed")
    return CardTable(
        "Runs", head, tuple(rows), "Held-out reward before training and at the end, points.", True
    )


def level_text(level: Estimate | None) -> str:
    """`2.31 (2.10 to 2.52)`."""
    if level is None:
        return ABSENT
    if level.low is None or level.high is None:
        return figure(level.mean)
    return f"{figure(level.mean)} ({figure(level.low)} to {figure(level.high)})"


def _p(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.3f}" if value >= 0.001 else "below 0.001"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def markdown(report: ExperimentReport) -> str:
    """The report in Markdown."""
    plan = report.plan
    lines = [f"# Experiment {plan.design.experiment}: {cell_text(plan.config)}", "", plan.design.question, ""]
    lines += [f"- {name}: {cell_text(value)}" for name, value in experiment_facts(report)]
    lines += ["", "## Conclusion", ""]
    lines += [f"- {cell_text(sentence)}" for sentence in report.sentences]
    for table in tables(report):
        lines += ["", f"## {table.title}", "", *table_lines(table), "", table.caption]
    return "\n".join(lines) + "\n"
