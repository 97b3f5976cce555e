"""Which charts the report shows, in which order, each with a caption that says how it was computed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dynalign.evaluation.statistics.estimates import Estimate
from dynalign.launch.report.charts import Chart, Series, heat_map, line_chart, stacked_bars
from dynalign.launch.report.data import (
    Curve,
    Run,
    capability_curve,
    gap_curve,
    heldout_age,
    heldout_curve,
    training_curve,
)
from dynalign.launch.report.time_split import learner_split, rollout_split
from dynalign.rollout.records import HIGHEST_SCORE

BLUE, ORANGE, GREEN, PURPLE, RED, GREY = range(6)
"""The page's palette, distinguishable with all common colour vision; report.css has the shades."""
SCORE_BANDS = 20
"""Rows of the heat map of scores."""


@dataclass(frozen=True, slots=True)
class ReportSection:
    """One section of the page."""

    anchor: str
    """Its id in the page's address."""
    title: str
    """Its heading."""
    intro: str
    """A sentence below the heading; may be empty."""
    charts: list[Chart]
    """Its charts."""


def sections(run: Run) -> list[ReportSection]:
    """All sections with charts. A chart without figures is included, and says so."""
    return [_reward(run), _judge(run), _policy(run), _completions(run), _learner(run), _time(run)]


def _column(run: Run, name: str) -> Curve:
    return [(step, Estimate(value)) for step, value in run.column(name)]


def _resumed(run: Run) -> dict[int, str]:
    """The steps at which a newer lineage begins, with a label: the run was resumed or rolled back there."""
    pairs = zip(run.rows, run.rows[1:], strict=False)
    return {b["step"]: f"lineage {b['lineage']}" for a, b in pairs if b["lineage"] != a["lineage"]}


def _lines(
    run: Run,
    title: str,
    unit: str,
    names: Sequence[tuple[str, str, int]],
    caption: str = "",
    rules: dict[str, float] | None = None,
    floor: float | None = None,
) -> Chart:
    """Metrics as lines. names: label, metric and colour of each."""
    series = [Series(label, _column(run, name), colour) for label, name, colour in names]
    return line_chart(title, unit, series, caption, rules=rules, floor=floor, marks=_resumed(run))


def _reward(run: Run) -> ReportSection:
    age = heldout_age(run)
    versions = f"They are of the version of their step, and of up to {age} before. " if age else ""
    yardstick = (
        "The judge is the policy itself, so the yardstick moves with training: read these curves beside the "
        "judge's health and the answers themselves."
        if run.setting("judge.kind") == "self"
        else ""
    )
    reward = line_chart(
        "Reward",
        f"points of {HIGHEST_SCORE}",
        [
            Series("training", training_curve(run), BLUE),
            Series("held-out, without the system prompt", heldout_curve(run, prompted=False), ORANGE),
            Series("held-out, with it", heldout_curve(run, prompted=True), GREEN),
            Series(
                "training, by the frozen judge", _column(run, "frozen_judge_reward_mean"), PURPLE, dashed=True
            ),
        ],
        "Training: mean over the means of the step's trained groups, with the system prompt. "
        f"Held-out: mean over prompts, one answer each. {versions}"
        "Bands: 95 % intervals (Student's t) over groups and over prompts; "
        "a band wider than the picture is cut.",
        marks=_resumed(run),
    )
    scores = heat_map(
        "Scores",
        f"points of {HIGHEST_SCORE}",
        {step: part.scores for step, part in run.experience.items()},
        f"Share of a column's candidates in each of {SCORE_BANDS} bands; darker is more. "
        "Trained groups, unparsed candidates left out.",
        high=HIGHEST_SCORE,
        rows=SCORE_BANDS,
    )
    spread = _lines(
        run,
        "Spread within a group",
        "points",
        [("std of a group's scores", "reward_std", BLUE), ("judge's own noise", "judge_noise_std", RED)],
        "Mean over groups of the standard deviation of the candidates' scores. "
        "Noise: the same candidate scored again in another batch; "
        "a group whose spread is below twice the noise carries no signal.",
        floor=0.0,
    )
    signal = _lines(
        run,
        "Groups without signal",
        "fraction",
        [
            ("groups without signal", "no_signal_fraction", BLUE),
            ("saturated scores", "score_saturation_fraction", ORANGE),
        ],
        "Groups whose candidates score the same teach nothing and are withheld. "
        "Saturated: within 0.1 points of either end.",
        floor=0.0,
    )
    return ReportSection("reward", "Reward", yardstick, [reward, scores, spread, signal])


def _judge(run: Run) -> ReportSection:
    least = run.setting("judge.min_digit_mass")
    rules = (
        {f"unparsed below {least}": float(least)}
        if isinstance(least, int | float) and run.column("digit_mass_mean")
        else None
    )
    understood = _lines(
        run,
        "Verdicts understood",
        "fraction",
        [("digit mass", "digit_mass_mean", BLUE), ("unparsed", "unparsed_fraction", RED)],
        "Digit mass: the probability that the judge answers with one of the six digits at all. "
        "Unparsed: candidates without a readable verdict; they get advantage 0.",
        rules,
        0.0,
    )
    length = _lines(
        run,
        "Score and length",
        "correlation",
        [("correlation", "score_length_correlation", BLUE)],
        "Pearson's correlation of scores with completion lengths. "
        "A judge that pays for words shows here first.",
        {"no correlation": 0.0},
    )
    return ReportSection("judge", "Judge", _spent(run), [understood, length])


def _spent(run: Run) -> str:
    """What each endpoint has cost; empty without one."""
    return " ".join(
        f"{each.account}: {each.requests:,} requests, {each.spent.tokens:,} tokens"
        + (f", {each.spent.cost:.4g} in money." if each.spent.cost else ".")
        for each in run.endpoints
    )


def _policy(run: Run) -> ReportSection:
    gap = line_chart(
        "Internalization gap",
        "nats per token",
        [Series("gap", gap_curve(run), BLUE)],
        "Mean over tokens of log π(y|s,x) − log π(y|x) at one version: "
        "how much the system prompt s still changes what the policy says. "
        "Σ nats / Σ tokens over the probed candidates; 95 % interval of that ratio with groups as clusters. "
        "Whether it falls is an open question, not a promise.",
        rules={"the prompt changes nothing": 0.0},
        marks=_resumed(run),
    )
    bound = run.setting("algorithm.max_staleness")
    age = _lines(
        run,
        "Age of the trained tokens",
        "versions",
        [("mean", "staleness_mean", BLUE), ("oldest", "staleness_max", ORANGE)],
        "Learner step minus the version that sampled the token, time in the queue included.",
        {f"bound {bound}": float(bound)} if isinstance(bound, int) and run.column("staleness_max") else None,
        0.0,
    )
    charts = [gap, age]
    if change := capability_curve(run):
        kept = line_chart(
            "Capability probe",
            "change of the mean score",
            [Series("change", change, BLUE)],
            "Score of verifiable items, asked without the system prompt, less that of the initial policy on "
            "the same items. Band: 95 % interval of the paired differences. "
            "A point stands at the step after which its last answer came.",
            rules={"as before training": 0.0},
            marks=_resumed(run),
        )
        charts.append(kept)
    return ReportSection("policy", "Internalization and age", "", charts)


def _completions(run: Run) -> ReportSection:
    limit = run.setting("rollout.max_completion_tokens")
    length = _lines(
        run,
        "Completion length",
        "tokens",
        [("mean", "completion_length_mean", BLUE)],
        "Mean over the step's candidates.",
    )
    cut = _lines(
        run,
        "Truncated completions",
        "fraction",
        [("truncated", "truncated_fraction", BLUE)],
        f"Cut at {limit} tokens instead of ending by themselves." if limit else "Cut at the token limit.",
        floor=0.0,
    )
    return ReportSection("completions", "Completions", "", [length, cut])


def _learner(run: Run) -> ReportSection:
    charts = [
        _lines(run, "Loss", "GRPO", [("loss", "loss", BLUE)]),
        _lines(run, "Gradient norm", "before clipping", [("norm", "grad_norm", BLUE)], floor=0.0),
        _lines(run, "Entropy", "nats per token", [("entropy", "entropy", BLUE)]),
        _lines(run, "Learning rate", "per step", [("rate", "learning_rate", BLUE)], floor=0.0),
        _lines(
            run,
            "Importance ratio",
            "π over π at the step's start",
            [("mean", "ratio_mean", BLUE), ("largest", "ratio_max", ORANGE)],
        ),
        _lines(
            run,
            "Clipped tokens",
            "fraction",
            [("low", "clip_low_fraction", BLUE), ("high", "clip_high_fraction", ORANGE)],
            floor=0.0,
        ),
        _lines(run, "KL to the initial policy", "nats per token, k3", [("KL", "kl", BLUE)], floor=0.0),
        _lines(
            run, "Effective sample size", "fraction", [("share", "effective_sample_size", BLUE)], floor=0.0
        ),
        _lines(
            run,
            "Engine–learner mismatch",
            "nats per token",
            [("mean", "logprob_mismatch_mean", BLUE)],
            floor=0.0,
        ),
    ]
    shown = [chart for chart in charts if chart.svg]
    missing = ", ".join(chart.title for chart in charts if not chart.svg)
    return ReportSection(
        "learner", "Learner", f"Not measured in this run: {missing}." if missing else "", shown
    )


def _time(run: Run) -> ReportSection:
    rollout = rollout_split(run)
    learner = learner_split(run)
    y_high = max((sum(parts) for parts in [*rollout.values(), *learner.values()]), default=0.0)
    worker = stacked_bars(
        "A worker's step",
        "s",
        [("generating", BLUE), ("scoring", GREEN), ("loading weights", PURPLE), ("idle", GREY)],
        rollout,
        "Mean over workers; the bar is the whole step. Generating and scoring overlap where groups are in "
        "flight together: their busy time is divided in proportion.",
        y_high,
    )
    learning = stacked_bars(
        "The learner's step",
        "s",
        [
            ("learning", BLUE),
            ("publishing", PURPLE),
            ("straggler wait", RED),
            ("batch wait", ORANGE),
            ("rest", GREY),
        ],
        learner,
        "The same steps on the same scale: rollout and learner work at the same time. "
        "Rest: commit and checkpoint; evaluations stand between steps.",
        y_high,
    )
    throughput = _lines(
        run,
        "Throughput",
        "tokens/s",
        [
            ("generated, all workers", "generate_tokens_per_s", BLUE),
            ("learned", "learn_tokens_per_s", ORANGE),
        ],
        "Generated: per second of the step. Learned: per second of learning.",
        floor=0.0,
    )
    weights = _lines(
        run,
        "Weight updates",
        "s",
        [("publishing", "weight_sync_s", BLUE), ("generation paused", "weight_sync_pause_s", ORANGE)],
        "Publishing a version so that workers can fetch it, and the pause of a worker that loads it.",
        floor=0.0,
    )
    return ReportSection("time", "Time", "", [worker, learning, throughput, weights])


def comparison_charts(runs: Sequence[tuple[str, Run]]) -> list[Chart]:
    """Charts that each show one quantity of several runs. runs: label and run."""

    def overlaid(
        title: str, unit: str, curves: Sequence[Curve], caption: str = "", floor: float | None = None
    ) -> Chart:
        series = [
            Series(label, curve, index % 6, index >= 6)
            for index, ((label, _), curve) in enumerate(zip(runs, curves, strict=True))
        ]
        chart = line_chart(title, unit, series, caption, floor=floor)
        named = tuple(
            (each.label, f"c{each.colour}{' dashed' if each.dashed else ''}") for each in series if each.curve
        )
        return replace(chart, legend=named)

    points = f"points of {HIGHEST_SCORE}"
    over = "Bands: 95 % intervals over prompts."
    plain = [heldout_curve(run, prompted=False) for _, run in runs]
    prompted = [heldout_curve(run, prompted=True) for _, run in runs]
    trained = [training_curve(run) for _, run in runs]
    gaps = [gap_curve(run) for _, run in runs]
    return [
        overlaid("Held-out reward, without the system prompt", points, plain, over),
        overlaid("Held-out reward, with it", points, prompted, over),
        overlaid("Training reward", points, trained, "Bands: 95 % intervals over groups."),
        overlaid("Internalization gap", "nats per token", gaps, "Intervals with groups as clusters."),
        overlaid("Completion length", "tokens", [_column(run, "completion_length_mean") for _, run in runs]),
        overlaid("Step time", "s", [_column(run, "step_s") for _, run in runs], floor=0.0),
    ]
