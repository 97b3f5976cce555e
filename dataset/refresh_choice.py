"""Where new prompts are worth their money: the parts of life in which the policy's groups still separate, and
the prompts whose groups do not any more. Pure functions of the run's record.

The usefulness of a group is u = max(0, 1 − σ²noise / σ²scores), the reliability of its advantages, and 0 for
a group that was withheld because its scores teach nothing. The usefulness of a prompt is the mean of its
groups in the newer half of the recorded steps, since an older policy says little about the present one.

Per axis, a one-way random-effects model over prompts (Searle, Casella, McCulloch, Variance Components, 1992,
section 3.6) tells differences between values from chance:

    s² = SSW / (N − K)      τ² = max(0, (SSB / (K − 1) − s²) / n₀)      n₀ = (N − Σ n_v² / N) / (K − 1)
    effect of a value v = τ² / (τ² + s² / n_v) · (mean_v − mean)

    û(cell) = mean + Σ over axes of the effect of the cell's value, cut to 0..1

So an axis whose values differ by no more than chance has no effect, and a value with few prompts little.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import fmean
from typing import NamedTuple

from dynalign.dataset.items import Cell
from dynalign.dataset.taxonomy import Taxonomy, even_cells

STANDARD_ERRORS = 2.0
"""Confidence of the rule for a saturated prompt."""
PRIOR_GROUPS = 2.0
"""Groups that the expectation of a prompt's cell counts for, beside the groups of the prompt itself."""
LEAST_STREAK = 2
"""Groups in a row without signal without which no prompt is saturated: one may be chance in any cell."""
LEAST_PROMPTS = 30
"""Prompts with a group in the newer half below which nothing is decided: a share of one half is then known to
±0.18 (two standard errors) at best."""

MOST_CELLS_PER_CELL = 64
"""Cells that are looked at for each useful one. On average about half of all are useful."""


class GroupOutcome(NamedTuple):
    """What became of one group: GroupOutcome(prompt=17, step=12, usefulness=0.8)."""

    prompt: int
    """Position of its prompt in the training split."""
    step: int
    """The step that trained it, or was trained next after it was withheld."""
    usefulness: float
    """u, from 0 to 1; 0 for a group without signal."""


@dataclass(frozen=True)
class ValueEffect:
    """One value of an axis: `ValueEffect("domain", "food", 40, 0.31, 0.05, -0.18)`."""

    axis: str
    """The axis."""
    value: str
    """Its value."""
    prompts: int
    """Prompts with this value that have a group in the newer half."""
    usefulness: float
    """Mean of u over these prompts."""
    standard_error: float
    """Of this mean."""
    effect: float
    """What the value adds to the usefulness of a cell, chance taken out."""


@dataclass(frozen=True)
class RefreshChoice:
    """Where groups still separate, and which prompts have no use any more.

    Example: `RefreshChoice(0.55, 0.4, 400, 6, (ValueEffect(…), …), saturated=(3, 17))`.
    """

    usefulness: float
    """Mean of u over the prompts with a group in the newer half."""
    without_signal: float
    """Share of the groups in the newer half whose u is 0."""
    prompts: int
    """Prompts with a group in the newer half."""
    first_step: int
    """The step with which the newer half begins."""
    effects: tuple[ValueEffect, ...]
    """Of every value of every axis on which at least two values are known, in their order."""
    saturated: tuple[int, ...]
    """Positions of prompts that are not worth drawing again, ascending."""

    def expected(self, cell: Mapping[str, str]) -> float:
        """û of a cell, from 0 to 1. cell: axis → value; values that are not known add nothing."""
        added = sum(each.effect for each in self.effects if cell.get(each.axis) == each.value)
        return min(1.0, max(0.0, self.usefulness + added))

    def is_useful(self, cell: Mapping[str, str]) -> bool:
        """Whether groups of a cell are expected to separate at least as well as those of the run."""
        return self.expected(cell) >= self.usefulness - 1e-9


def group_usefulness(scores_G: Sequence[float], noise_std: float | None) -> float:
    """u of a group by the parsed scores of its candidates, with the variance of n − 1. noise_std: the
    standard deviation of the judge's noise, in points; None where it was not measured, which counts as 0."""
    if len(scores_G) < 2:
        return 0.0
    mean = fmean(scores_G)
    variance = sum((score - mean) ** 2 for score in scores_G) / (len(scores_G) - 1)
    return 0.0 if variance <= 0.0 else max(0.0, 1.0 - (noise_std or 0.0) ** 2 / variance)


def choose(cells: Sequence[Mapping[str, str]], outcomes: Sequence[GroupOutcome]) -> RefreshChoice:
    """cells: position of a prompt → its axes and their values; empty for a prompt of which nothing is known.
    outcomes: in the order of their steps; at least one.

    A prompt is saturated if its newest LEAST_STREAK or more groups all have u = 0, and if so with
    STANDARD_ERRORS of confidence: with n of them, and m = PRIOR_GROUPS of the expectation û of its cell,
    p = m·û / (m + n), p + STANDARD_ERRORS · √(p·(1 − p) / (m + n + 1)) is below the run's usefulness.
    """
    first_step = _first_step(outcomes)
    recent: defaultdict[int, list[float]] = defaultdict(list)
    streaks: dict[int, int] = {}
    for outcome in outcomes:
        streaks[outcome.prompt] = 0 if outcome.usefulness > 0.0 else streaks.get(outcome.prompt, 0) + 1
        if outcome.step >= first_step:
            recent[outcome.prompt].append(outcome.usefulness)
    usefulness_of = {prompt: fmean(each) for prompt, each in sorted(recent.items())}
    every = [usefulness for each in recent.values() for usefulness in each]
    effects = [
        effect
        for axis in dict.fromkeys(axis for cell in cells for axis in cell)
        for effect in _axis_effects(axis, cells, usefulness_of)
    ]
    dull = sum(each == 0.0 for each in every) / len(every)
    mean = fmean(usefulness_of.values())
    choice = RefreshChoice(mean, dull, len(usefulness_of), first_step, tuple(effects), ())
    saturated = (
        prompt
        for prompt, streak in streaks.items()
        if streak >= LEAST_STREAK and _upper(choice.expected(cells[prompt]), streak) < mean
    )
    return RefreshChoice(mean, dull, len(usefulness_of), first_step, tuple(effects), tuple(sorted(saturated)))


def _first_step(outcomes: Sequence[GroupOutcome]) -> int:
    """The step with which the newer half of the recorded steps begins."""
    steps = sorted({outcome.step for outcome in outcomes})
    return steps[len(steps) // 2]


def _upper(expected: float, streak: int) -> float:
    """The upper end of what a prompt is still worth after so many groups without signal."""
    groups = PRIOR_GROUPS + streak
    mean = PRIOR_GROUPS * expected / groups
    return mean + STANDARD_ERRORS * sqrt(mean * (1.0 - mean) / (groups + 1.0))


def _axis_effects(
    axis: str, cells: Sequence[Mapping[str, str]], usefulness_of: Mapping[int, float]
) -> list[ValueEffect]:
    """The effects of an axis; none where fewer than two values are known, or no value has two prompts."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for prompt, usefulness in usefulness_of.items():
        if value := cells[prompt].get(axis):
            found[value].append(usefulness)
    values = len(found)
    prompts = sum(map(len, found.values()))
    if values < 2 or prompts <= values:
        return []
    mean = fmean(usefulness for each in found.values() for usefulness in each)
    mean_of = {value: fmean(each) for value, each in found.items()}
    within = sum((one - mean_of[value]) ** 2 for value, each in found.items() for one in each)
    within /= prompts - values
    between = sum(len(each) * (mean_of[value] - mean) ** 2 for value, each in found.items())
    per_value = (prompts - sum(len(each) ** 2 for each in found.values()) / prompts) / (values - 1)
    tau = max(0.0, (between / (values - 1) - within) / per_value)
    effects = []
    for value, each in sorted(found.items()):
        error = within / len(each)
        kept = tau / (tau + error) if tau > 0.0 else 0.0
        effect = kept * (mean_of[value] - mean)
        effects.append(ValueEffect(axis, value, len(each), mean_of[value], sqrt(error), effect))
    return effects


def useful_cells(choice: RefreshChoice, taxonomy: Taxonomy, count: int, seed: int) -> list[Cell]:
    """The first `count` useful cells of `even_cells`; fewer if MOST_CELLS_PER_CELL times as many hold no
    more."""
    wanted = 2 * count
    while True:
        useful = [cell for cell in even_cells(taxonomy, wanted, seed) if choice.is_useful(asdict(cell))]
        if len(useful) >= count or wanted >= MOST_CELLS_PER_CELL * count:
            return useful[:count]
        wanted *= 2
