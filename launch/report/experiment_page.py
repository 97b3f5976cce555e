"""`report.html` of an experiment: conclusion, plots with intervals, tables; no network, no script.

Text that a run has printed is data: it is escaped.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from dynalign.evaluation.experiments.comparison import MeasureTable
from dynalign.evaluation.experiments.conclusion import signed
from dynalign.evaluation.experiments.report import ExperimentReport
from dynalign.evaluation.experiments.run_figures import RunFigures
from dynalign.evaluation.statistics.estimates import Estimate, mean_interval
from dynalign.launch.report.charts import Chart, Series, line_chart
from dynalign.launch.report.data import Curve
from dynalign.launch.report.distance_chart import distance_chart, distance_paths
from dynalign.launch.report.experiment_tables import experiment_facts, tables
from dynalign.launch.report.figures import figure
from dynalign.launch.report.judge_tables import CardTable
from dynalign.launch.report.scales import nice_ticks

HERE = Path(__file__).parent
COLOURS = 6
"""Of the page's palette."""
LARGEST_MARGINS = 4
"""An interval is drawn to at most so many times the largest difference or the margin; one that is wider is
cut, since else nothing else could be seen."""
_WIDTH = 860
_LABELS = 250
"""Width for the arms' names, in the drawing's units; one is about a pixel."""
_READINGS = 210
"""Width for the figures at the right."""
_ROW = 30
_FOOT = 24


@lru_cache(maxsize=1)
def _template() -> Template:
    """Compiled once: the page is written after every run."""
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("experiment.html.j2")


def page(report: ExperimentReport) -> str:
    """The HTML page."""
    plan = report.plan
    by_prompt = [table for table in report.secondary if table.measure.by_prompt]
    differences = [
        (table.measure.title, chart)
        for table in (report.primary, *by_prompt)
        for chart in [difference_chart(report, table)]
        if chart is not None
    ]
    charts = [curve_chart(report), *gold_charts(report)]
    nothing = "" if report.transfer is not None else "No two arms can be compared yet."
    return rendered(
        plan.design.experiment, plan.design.question, experiment_facts(report), report.sentences,
        differences, charts, list(tables(report)), nothing,
    )  # fmt: skip


def rendered(
    title: str,
    question: str,
    facts: Sequence[tuple[str, str]],
    sentences: Sequence[str],
    differences: Sequence[tuple[str, Markup]],
    charts: Sequence[Chart],
    shown: Sequence[CardTable],
    nothing: str,
) -> str:
    """The page of these parts. nothing: said in the place of differences where there are none."""
    return _template().render(
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        title=title,
        question=question,
        facts=facts,
        sentences=sentences,
        differences=differences,
        charts=[chart for chart in charts if chart.svg is not None],
        tables=shown,
        nothing=nothing,
    )


def difference_chart(report: ExperimentReport, table: MeasureTable) -> Markup | None:
    """Each arm less the baseline with its interval, beside zero and the margin; None without any."""
    plan = report.plan
    rows = [
        (plan.design.arm(each.arm).title, each.found.estimate, each.verdict)
        for each in table.differences
        if each.found is not None
    ]
    if not rows:
        return None
    margin = plan.margin if table is report.primary else 0.0
    widest = LARGEST_MARGINS * max(margin, *(abs(found.mean) for _, found, _ in rows), 1e-6)
    low, high = _ends([found for _, found, _ in rows], margin, widest)
    ticks = nice_ticks(low, high)
    height = _ROW * len(rows) + _FOOT
    parts = []
    for tick in ticks:
        x = _x(tick, ticks)
        parts.append(f'<path class="{"rule" if tick == 0 else "grid"}" d="M{x:.1f} 0V{height - _FOOT}"/>')
        label = f'x="{x:.1f}" y="{height - 8}" text-anchor="middle"'
        parts.append(f'<text class="note" {label}>{figure(tick)}</text>')
    if margin:
        x = _x(-margin, ticks)
        parts.append(f'<path class="mark" d="M{x:.1f} 0V{height - _FOOT}"/>')
    kinds = {"better": "c2", "worse": "c4", "no worse": "c0", "inconclusive": "c5"}
    for row, (name, found, verdict) in enumerate(rows):
        y = _ROW * row + _ROW / 2
        parts.append(f'<text x="0" y="{y + 5}">{escape(name)}</text>')
        reading = f'x="{_WIDTH}" y="{y + 5}" text-anchor="end"'
        parts.append(f"<text {reading}>{escape(signed(found))}</text>")
        kind = kinds[verdict]
        if found.low is not None and found.high is not None:
            ends = (_x(max(found.low, ticks[0]), ticks), _x(min(found.high, ticks[-1]), ticks))
            parts.append(f'<path class="line {kind}" d="M{ends[0]:.1f} {y}H{ends[1]:.1f}"/>')
        parts.append(f'<circle class="dot {kind}" cx="{_x(found.mean, ticks):.1f}" cy="{y}" r="4.5"/>')
    label = f"Each arm less the baseline, {table.measure.title}, with 95 % intervals"
    svg = (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
    return Markup(svg)


def _ends(found: Sequence[Estimate], margin: float, widest: float) -> tuple[float, float]:
    lows = [each.mean if each.low is None else each.low for each in found]
    highs = [each.mean if each.high is None else each.high for each in found]
    return max(-widest, min(-margin, 0.0, *lows)), min(widest, max(0.0, *highs))


def _x(value: float, ticks: Sequence[float]) -> float:
    share = (value - ticks[0]) / (ticks[-1] - ticks[0])
    return _LABELS + share * (_WIDTH - _LABELS - _READINGS - 12)


def curve_chart(report: ExperimentReport) -> Chart:
    """The held-out reward over the steps, a line per arm: the mean over its runs."""
    series = []
    for number, arm in enumerate(report.plan.design.arms):
        curve = mean_curve(report.runs[arm.name])
        series.append(Series(arm.title, curve, number % COLOURS, number >= COLOURS))
    caption = "By the judge of each run; mean over its seeds, with 95 % intervals over seeds."
    return line_chart("Held-out reward, without the system prompt", "points", series, caption)


def mean_curve(runs: Sequence[RunFigures]) -> Curve:
    """The mean over runs at each step, with its interval over seeds."""
    by_step: dict[int, list[float]] = {}
    for run in runs:
        for step, value in run.curve:
            by_step.setdefault(step, []).append(value)
    found = ((step, mean_interval(values)) for step, values in sorted(by_step.items()))
    return [(step, estimate) for step, estimate in found if estimate is not None]


def gold_charts(report: ExperimentReport) -> list[Chart]:
    """Where a third judge has scored the answers: gold and proxy over the distance from the initial policy,
    and both over the steps."""
    arms = report.plan.design.arms
    if not any(run.gold for run in report.every_run):
        return []
    gold = []
    distance = []
    for number, arm in enumerate(arms):
        runs = report.runs[arm.name]
        look = (number % COLOURS, number >= COLOURS)
        gold.append(Series(arm.title, mean_curve([replace(run, curve=run.gold) for run in runs]), *look))
        far = [replace(run, curve=tuple(run.distance.items())) for run in runs]
        distance.append(Series(arm.title, mean_curve(far), *look))
    caption = "Mean over seeds, with 95 % intervals over seeds."
    return [
        distance_chart(distance_paths(report, COLOURS)),
        line_chart("Held-out reward by the third judge", "points", gold, caption),
        line_chart("√KL to the initial policy", "√nats", distance, caption),
    ]
