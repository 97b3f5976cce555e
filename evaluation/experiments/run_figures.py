"""What an arm's run has measured, read from its folder alone: per held-out prompt, and per run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import fmean, variance
from typing import Literal

import numpy as np

from dynalign.evaluation.experiments.advantage_error import advantage_error
from dynalign.run_folder import layout
from dynalign.run_folder.heldout import HeldoutItem, reward_by_step
from dynalign.run_folder.metrics import Row, read_heldout, read_metrics

RunState = Literal["finished", "running", "interrupted", "failed", "not started"]
ByPrompt = Mapping[str, float]
"""Prompt id → points."""
_OVER_STEPS = (
    "no_signal_fraction",
    "learner_wait_s",
    "staleness_mean",
    "ratio_max",
    "effective_sample_size",
    "score_length_correlation_within",
    "aspect_spread",
    "unparsed_fraction",
)
"""Metrics of which the mean over steps is a measure of the same name."""
_AT_THE_END = ("internalization_gap", "kl", "completion_length_mean")
"""Those of which it is the mean over the last third of the steps."""
ALARM = "alarm_"


@dataclass(frozen=True)
class RunOutcome:
    """How far a run has come: `RunOutcome("failed", 3, 210.0, "EngineError: out of memory")`."""

    state: RunState
    """How far."""
    step: int = 0
    """Steps trained."""
    wall_s: float | None = None
    """Seconds that it took; None before its end."""
    said: str = ""
    """Why it failed, in one line."""


@dataclass(frozen=True)
class RunFigures:
    """One run of an arm: `RunFigures("g4", 0, outcome, {"heldout": {"h1": 2.5}}, {"step_s": 8.1})`."""

    arm: str
    """The arm's name."""
    seed: int
    """Its seed."""
    outcome: RunOutcome
    """How far it has come."""
    by_prompt: Mapping[str, ByPrompt] = field(default_factory=dict)
    """Measure → held-out prompt → points, at the last evaluation."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Measure → value of the run; a measure that does not apply is left out."""
    curve: tuple[tuple[int, float], ...] = ()
    """(step, mean held-out reward without the system prompt)."""
    gold: tuple[tuple[int, float], ...] = ()
    """The same answers by the third judge, where there is one."""
    distance: Mapping[int, float] = field(default_factory=dict)
    """Step → √KL to the initial policy, in √nats; 0 before training."""
    alarms: tuple[tuple[str, int], ...] = ()
    """(alarm, first step at which it fired)."""


def read_run(folder: Path, arm: str, seed: int, outcome: RunOutcome) -> RunFigures:
    """The figures of a run. A folder without files gives none.

    Raises RecordError for a damaged file."""
    rows = [row for row in read_metrics(folder) if row["step"] > 0]
    items = read_heldout(folder)
    curve = tuple(sorted(reward_by_step(items).items()))
    by_prompt = {
        "heldout": last_scores(items, prompted=False),
        "heldout_prompted": last_scores(items, prompted=True),
    }
    plain = by_prompt["heldout"]
    prompted = by_prompt["heldout_prompted"]
    by_prompt["prompt_gain"] = {each: prompted[each] - plain[each] for each in plain if each in prompted}
    for name, with_prompt in (("heldout_gain", False), ("heldout_prompted_gain", True)):
        by_prompt[name] = gains(items, with_prompt)
    values = _of_metrics(rows) | _of_experience(folder, {row["step"] for row in rows})
    area = mean_height(curve)
    if area is not None:
        values["heldout_area"] = area
    distance = {row["step"]: math.sqrt(max(0.0, row["kl"])) for row in rows if row["kl"] is not None}
    return RunFigures(
        arm,
        seed,
        outcome,
        {name: each for name, each in by_prompt.items() if each},
        values,
        curve,
        distance={0: 0.0, **distance} if distance else {},
        alarms=_alarms(rows),
    )


def last_answers(items: Sequence[HeldoutItem], prompted: bool) -> list[HeldoutItem]:
    """The answers of the last evaluation."""
    chosen = [item for item in items if item.prompted == prompted]
    last = max((item.step for item in chosen), default=0)
    return [item for item in chosen if item.step == last]


def last_scores(items: Sequence[HeldoutItem], prompted: bool) -> dict[str, float]:
    """Prompt id → score at the last evaluation; a prompt without a readable verdict is left out."""
    return {item.prompt_id: item.score for item in last_answers(items, prompted) if item.score is not None}


def gains(items: Sequence[HeldoutItem], prompted: bool) -> dict[str, float]:
    """Prompt id → score at the last evaluation less that before training; {} with one evaluation."""
    first = {each.prompt_id: each for each in items if each.prompted == prompted and each.step == 0}
    last = last_answers(items, prompted)
    pairs = [(each, first[each.prompt_id]) for each in last if each.step and each.prompt_id in first]
    return {
        after.prompt_id: after.score - before.score
        for after, before in pairs
        if after.score is not None and before.score is not None
    }


def mean_height(curve: Sequence[tuple[int, float]]) -> float | None:
    """The mean of a curve over its steps, by trapezoids; None for fewer than two points."""
    if len(curve) < 2:
        return None
    steps, heights = zip(*curve, strict=True)
    return float(np.trapezoid(heights, steps) / (steps[-1] - steps[0]))


def _column(rows: Sequence[Row], name: str) -> list[float]:
    return [row[name] for row in rows if row[name] is not None]


def _of_metrics(rows: Sequence[Row]) -> dict[str, float]:
    found: dict[str, float] = {}
    third = math.ceil(len(rows) / 3)
    parts = {"first": rows[:third], "last": rows[len(rows) - third :]}
    for name in _OVER_STEPS:
        if column := _column(rows, name):
            found[name] = fmean(column)
    for name in _AT_THE_END:
        if column := _column(parts["last"], name):
            found[name] = fmean(column)
    # The first step waits for the first batch, and compiles.
    if step_s := _column(rows[1:], "step_s"):
        found["step_s"] = fmean(step_s)
    for name, metric in (("gap_change", "internalization_gap"), ("reward_rise", "reward_mean")):
        first = _column(parts["first"], metric)
        last = _column(parts["last"], metric)
        if first and last and len(rows) > 1:
            found[name] = fmean(last) - fmean(first)
    reward = _column(rows[:1], "reward_mean")
    last = _column(parts["last"], "reward_mean")
    if reward and last and len(rows) > 1:
        found["trained_gain"] = fmean(last) - reward[0]
    return found


def _alarms(rows: Sequence[Row]) -> tuple[tuple[str, int], ...]:
    first: dict[str, int] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith(ALARM) and value:
                first.setdefault(name.removeprefix(ALARM), row["step"])
    return tuple(sorted(first.items(), key=lambda pair: (pair[1], pair[0])))


def _of_experience(folder: Path, steps: set[int]) -> dict[str, float]:
    """Measures of the trained groups: those of the steps that the metrics have."""
    from dynalign.rollout.arrow_schema import decode

    groups: list[list[float]] = []
    aspects: list[dict[str, list[float]]] = []
    for step, file in sorted(layout.experience_files(folder / layout.EXPERIENCE).items()):
        if step not in steps:
            continue  # of a step that was rolled back
        for batch in decode(file.read_bytes(), str(file)):
            scores = batch.column("score").to_pylist()
            groups.append([score for score in scores if score is not None])
            aspects.append(_by_aspect(batch.column("opinions").to_pylist()))
    found: dict[str, float] = {}
    if spread := [variance(scores) for scores in groups if len(scores) > 1]:
        found["reward_variance"] = fmean(spread)
    error = advantage_error(groups)
    if error is not None:
        found["advantage_error"] = error
    correlation = aspect_correlation(aspects)
    if correlation is not None:
        found["aspect_correlation"] = correlation
    return found


def _by_aspect(opinions_G: Sequence[Sequence[Mapping[str, object]]]) -> dict[str, list[float]]:
    """Aspect → the scores of a group's candidates; only aspects that all candidates have."""
    found: dict[str, list[float]] = {}
    for opinions in opinions_G:
        for opinion in opinions:
            score = opinion["score"]
            if opinion["role"] == "part" and opinion["rubric"] and isinstance(score, float):
                found.setdefault(str(opinion["rubric"]), []).append(score)
    return {name: scores for name, scores in found.items() if len(scores) == len(opinions_G)}


def aspect_correlation(groups: Sequence[Mapping[str, Sequence[float]]]) -> float | None:
    """The mean over pairs of aspects of Pearson's correlation of the deviations from a group's means.

    None where no pair has spread."""
    names = sorted({name for group in groups for name in group})
    found = []
    for first, second in combinations(names, 2):
        both = [group for group in groups if first in group and second in group]
        x = np.array([score - fmean(group[first]) for group in both for score in group[first]])
        y = np.array([score - fmean(group[second]) for group in both for score in group[second]])
        spread = float((x**2).sum() * (y**2).sum()) if len(x) else 0.0
        if spread > 1e-18:
            found.append(float((x * y).sum()) / math.sqrt(spread))
    return fmean(found) if found else None
