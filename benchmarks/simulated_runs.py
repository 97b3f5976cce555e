"""Simulated runs for the alarms: rows of `metrics.jsonl` from scores of single candidates, clean or with one
fault from a known step on.

What makes real series hard is in them: prompts that differ in difficulty and come in epochs, a reward that
rises and saturates, a policy whose level wanders, and what its judge prefers with it (AR(1) processes), steps
that are odd, evaluations every few steps, shares near 0, a judge with noise and a second judge with another
offset, and values that are missing. The sizes are those of a small run; `Fault` says by how much each fault
changes what.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
"""Axes T steps, P prompts, G candidates."""

HELDOUT_EVERY = 5
MISSING = 0.02
"""Share of the values that are null."""
ODD = 0.01
"""Share of the steps whose level is off by half a point."""
WITHIN_STD = 0.45
"""Points: how far the candidates of a group differ, by the truth."""
ASPECTS = 4
PROBE_ITEMS = 200


@dataclass(frozen=True)
class Shape:
    """How large a simulated run is. Example: `Shape(steps=400, prompts=8, group_size=8)`."""

    steps: int = 400
    """Steps, T."""
    prompts: int = 8
    """Groups of a step, P."""
    group_size: int = 8
    """Candidates of a group, G."""


@dataclass(frozen=True)
class Fault:
    """One fault, at its full size from the onset on.

    Example: `Fault("length_gaming", "pays for length", {"length_slope": 0.5})`.
    """

    alarm: str
    """The alarm that has to fire."""
    what: str
    """What happens, with its size, in words."""
    changes: Mapping[str, float]
    """What is added to the parameters of `_Parameters` after the onset."""


FAULTS: tuple[Fault, ...] = (
    Fault("reward_collapse", "the reward falls by 0.8 points", {"level": -0.8}),
    Fault("capability_loss", "the probe of 200 items loses 20 points of 100", {"probe": -0.2}),
    Fault("prompt_overfitting", "training prompts score 1.2 points more, held-out ones as before",
        {"training_only": 1.2}),
    Fault("aspect_imbalance", "one aspect gains 0.5 points, another loses 0.5", {"aspects": 0.5}),
    Fault("value_drift", "the judge gives 0.4 points more, the second one does not", {"judge_offset": 0.4}),
    Fault("value_drift", "the judge ranks by something else: equal means, rank correlation 0.56 → 0",
        {"foreign": 1.0}),
    Fault("length_gaming", "0.6 points per standard deviation of length", {"length_slope": 0.6}),
    Fault("low_reliability", "the judge's noise rises to 0.9 points", {"noise": 0.75}),
    Fault("self_bias", "0.5 points per standard deviation of confidence", {"confidence_slope": 0.5}),
    Fault("unparsed_verdicts", "20 % of the verdicts cannot be read", {"unparsed": 0.18}),
    Fault("injection", "15 % of the answers look like attacks", {"injected": 0.15}),
)  # fmt: skip
"""Every alarm has one at least."""


def simulate(
    rng: np.random.Generator,
    shape: Shape,
    fault: Fault | None = None,
    onset_step: int = 0,
    size: float = 1.0,
) -> list[dict[str, Any]]:
    """The rows of one run, steps 1 to T. fault: from `onset_step` on, `size` times as large as it says."""
    present_T = np.arange(1, shape.steps + 1) >= onset_step if fault else np.zeros(shape.steps, dtype=bool)
    changes = {} if fault is None else {name: size * by for name, by in fault.changes.items()}

    def at(name: str, clean: float = 0.0) -> NDArray[np.float64]:
        """The parameter at each step, [T]."""
        return np.asarray(clean + changes.get(name, 0.0) * present_T, dtype=np.float64)

    columns = _scored(rng, shape, at) | _evaluated(rng, shape, at) | _aspects(rng, shape, at)
    columns |= _shares(rng, shape, at)
    lengths_T = 60 + 30 * (1 - np.exp(-np.arange(shape.steps) / 100)) + rng.normal(0, 2, shape.steps)
    candidates = shape.prompts * shape.group_size
    for values_T in columns.values():
        values_T[rng.random(shape.steps) < MISSING] = np.nan
    columns["completion_length_mean"] = lengths_T
    columns["completion_tokens"] = lengths_T * candidates
    return [
        {"step": step + 1}
        | {name: None if np.isnan(v[step]) else float(v[step]) for name, v in columns.items()}
        for step in range(shape.steps)
    ]


Parameter = Any
"""`at` of `simulate`."""


def _wander(rng: np.random.Generator, steps: int, std: float) -> NDArray[np.float64]:
    """A stationary AR(1) process, [T], whose lag-1 correlation is drawn between 0 and 0.8."""
    correlation = rng.uniform(0.0, 0.8)
    shocks_T = rng.normal(0, std * np.sqrt(1 - correlation**2), steps)
    wander_T = np.zeros(steps)
    wander_T[0] = rng.normal(0, std)
    for step in range(1, steps):
        wander_T[step] = correlation * wander_T[step - 1] + shocks_T[step]
    return wander_T


def _level(rng: np.random.Generator, steps: int) -> NDArray[np.float64]:
    """The policy's true reward, [T]: it rises, saturates, and wanders; one step in a hundred is odd."""
    rise_T = rng.uniform(0.0, 1.2) * (1 - np.exp(-np.arange(steps) / rng.uniform(30, 150)))
    odd_T = np.where(rng.random(steps) < ODD, rng.normal(0, 0.5, steps), 0.0)
    level_T: NDArray[np.float64] = 2.0 + rise_T + _wander(rng, steps, 0.06) + odd_T
    return level_T


def _difficulties(rng: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
    """How much easier each drawn prompt is than the average one, [T, P], from epochs over 200 prompts."""
    prompts = rng.normal(0, 0.5, 200)
    needed = shape.steps * shape.prompts
    epochs = [rng.permutation(prompts) for _ in range(needed // 200 + 1)]
    drawn: NDArray[np.float64] = np.concatenate(epochs)[:needed]
    return drawn.reshape(shape.steps, shape.prompts)


def _scored(rng: np.random.Generator, shape: Shape, at: Parameter) -> dict[str, NDArray[np.float64]]:
    """What is measured on the candidates of a step, and on the held-out prompts."""
    size = (shape.steps, shape.prompts, shape.group_size)
    level_T = _level(rng, shape.steps) + at("level")
    quality = rng.normal(0, WITHIN_STD, size)
    length = 0.3 * quality / WITHIN_STD + rng.normal(0, 0.95, size)
    confidence = 0.2 * quality / WITHIN_STD + rng.normal(0, 0.98, size)
    truth = level_T[:, None, None] + _difficulties(rng, shape)[:, :, None] + quality

    def spread(values_T: NDArray[np.float64]) -> Scores:
        return values_T[:, None, None]

    mixed = spread(at("foreign"))  # the judge's order comes from elsewhere, with the same spread
    quality_seen = np.where(mixed > 0, (1 - np.minimum(mixed, 1)) * quality, quality)
    foreign = np.sqrt(np.minimum(mixed * (2 - mixed), 1)) * rng.normal(0, WITHIN_STD, size)
    noise_T = at("noise", 0.15)
    offset_T = at("judge_offset") + _wander(rng, shape.steps, 0.03)
    length_slope_T = at("length_slope") + _wander(rng, shape.steps, 0.04)
    confidence_slope_T = at("confidence_slope") + _wander(rng, shape.steps, 0.04)
    live = truth - quality + quality_seen + foreign + spread(at("training_only") + offset_T)
    live += spread(length_slope_T) * length + spread(confidence_slope_T) * confidence
    live = np.clip(live + spread(noise_T) * rng.normal(0, 1, size), 0, 5)
    second = np.clip(truth + 0.2 + rng.normal(0, 0.3, size), 0, 5)
    variance_T = live.var(axis=2, ddof=1).mean(axis=1)
    heldout_T = level_T + offset_T + rng.normal(0, WITHIN_STD / np.sqrt(32), shape.steps)
    heldout_T[np.arange(1, shape.steps + 1) % HELDOUT_EVERY != 0] = np.nan
    return {
        "reward_mean": live.mean(axis=(1, 2)),
        "reward_std": live.std(axis=2, ddof=1).mean(axis=1),
        "heldout_prompted_reward_mean": heldout_T,
        "score_length_correlation_within": _within(live, length),
        "self_bias_correlation": _within(live - second, confidence),
        "second_judge_gap": (live - second).mean(axis=(1, 2)),
        "second_judge_rank_correlation": _rank_correlation(live, second),
        "advantage_reliability": 1 - np.square(noise_T * rng.uniform(0.9, 1.1, shape.steps)) / variance_T,
    }


def _within(first: Scores, second: Scores) -> NDArray[np.float64]:
    """Pearson's correlation of deviations from the groups' means, per step, [T]."""
    one = first - first.mean(axis=2, keepdims=True)
    other = second - second.mean(axis=2, keepdims=True)
    both = np.sqrt((one**2).sum(axis=(1, 2)) * (other**2).sum(axis=(1, 2)))
    correlation: NDArray[np.float64] = (one * other).sum(axis=(1, 2)) / both
    return correlation


def _rank_correlation(first: Scores, second: Scores) -> NDArray[np.float64]:
    """Kendall's τ within groups, mean over the groups of a step, [T]; the simulated scores have no ties."""
    pairs = np.triu_indices(first.shape[2], 1)
    one = np.sign(first[:, :, pairs[0]] - first[:, :, pairs[1]])
    other = np.sign(second[:, :, pairs[0]] - second[:, :, pairs[1]])
    tau: NDArray[np.float64] = (one * other).mean(axis=(1, 2))
    return tau


def _evaluated(rng: np.random.Generator, shape: Shape, at: Parameter) -> dict[str, NDArray[np.float64]]:
    """A probe of abilities: paired changes of items, of which 5 % flip by chance at every evaluation."""
    change_T = np.full(shape.steps, np.nan)
    error_T = np.full(shape.steps, np.nan)
    before = rng.random(PROBE_ITEMS) < 0.5
    for step in range(HELDOUT_EVERY, shape.steps + 1, HELDOUT_EVERY):
        lost = rng.random(PROBE_ITEMS) < -at("probe")[step - 1] / 0.5
        after = np.where(rng.random(PROBE_ITEMS) < 0.05, rng.random(PROBE_ITEMS) < 0.5, before & ~lost)
        differences = after.astype(float) - before
        change_T[step - 1] = differences.mean()
        error_T[step - 1] = max(differences.std(ddof=1), 0.1) / np.sqrt(PROBE_ITEMS)
    return {"capability_change": change_T, "capability_change_se": error_T}


def _aspects(rng: np.random.Generator, shape: Shape, at: Parameter) -> dict[str, NDArray[np.float64]]:
    """The distance of the rubric's aspects, each a mean over the step's candidates."""
    error = 0.5 / np.sqrt(shape.prompts * shape.group_size)
    means = rng.normal(0, 0.3, ASPECTS) + rng.normal(0, error, (shape.steps, ASPECTS))
    means[:, int(means.mean(axis=0).argmax())] += at("aspects")
    means[:, int(means.mean(axis=0).argmin())] -= at("aspects")
    return {"aspect_spread": means.max(axis=1) - means.min(axis=1)}


def _shares(rng: np.random.Generator, shape: Shape, at: Parameter) -> dict[str, NDArray[np.float64]]:
    """Shares of candidates, whose probability differs between groups (a beta distribution)."""
    found = {}
    for name, parameter, clean in (
        ("unreadable_fraction", "unparsed", 0.02),
        ("injection_fraction", "injected", 0.002),
    ):
        mean_TP = np.repeat(at(parameter, clean)[:, None], shape.prompts, axis=1)
        chance_TP = rng.beta(mean_TP * 9, (1 - mean_TP) * 9)  # intraclass correlation 1 / (9 + 1)
        found[name] = rng.binomial(shape.group_size, chance_TP).mean(axis=1) / shape.group_size
    return found
