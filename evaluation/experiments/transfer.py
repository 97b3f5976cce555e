"""Whether what was learned holds for other prompts: gains on trained, held-out and foreign prompts, and gaps.

The sets have different prompts, so a gap is paired by seed alone. With D_s the difference of two sets' mean
gains of seed s, and the variance between prompts of each set,

    variance = Var(D_s)/S + prompts₁/N₁ + prompts₂/N₂

with the degrees of Satterthwaite (1946). The first term holds what seeds and single answers add, the others
what other prompts would.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from dynalign.evaluation.experiments.run_figures import RunFigures
from dynalign.evaluation.statistics.crossed import CrossedMean, crossed_mean, seeds_mean

HOME = "home-"
"""How the ids of held-out prompts of the run's own source begin."""
FOREIGN = "foreign-"
"""How those of the other source begin."""


@dataclass(frozen=True)
class PromptSetGain:
    """What was gained on one set: `PromptSetGain("foreign, without the system prompt", CrossedMean(…))`."""

    name: str
    """The set."""
    gain: CrossedMean | None
    """Reward at the end less that before training, in points; None while fewer than two runs have ended."""


@dataclass(frozen=True)
class TransferFigures:
    """Gains of the sets and the gaps between them: `TransferFigures((PromptSetGain(…),), (…,))`."""

    sets: tuple[PromptSetGain, ...]
    """Trained, held-out and foreign prompts."""
    gaps: tuple[PromptSetGain, ...]
    """Differences of two sets' gains."""


def transfer_figures(runs: Sequence[RunFigures]) -> TransferFigures:
    """The figures of an arm's runs."""
    sets = []
    gaps = []
    for measure, words in (
        ("heldout_gain", "without the system prompt"),
        ("heldout_prompted_gain", "with the system prompt"),
    ):
        home = _gains(runs, measure, HOME)
        foreign = _gains(runs, measure, FOREIGN)
        sets.append(PromptSetGain(f"held-out prompts, {words}", crossed_mean(home)))
        sets.append(PromptSetGain(f"foreign prompts, {words}", crossed_mean(foreign)))
        gaps.append(PromptSetGain(f"foreign less held-out, {words}", unpaired_gap(foreign, home)))
    trained = [run for run in runs if "trained_gain" in run.values]
    sets.insert(0, PromptSetGain("trained prompts, with the system prompt", seeds_mean(_trained(trained))))
    both = [run for run in trained if _mean(run, "heldout_prompted_gain", HOME) is not None]
    apart = [run.values["trained_gain"] - (_mean(run, "heldout_prompted_gain", HOME) or 0.0) for run in both]
    gaps.insert(0, PromptSetGain("trained less held-out, with the system prompt", seeds_mean(apart)))
    return TransferFigures(tuple(sets), tuple(gaps))


def unpaired_gap(
    first_SN: Sequence[Sequence[float]], second_SM: Sequence[Sequence[float]]
) -> CrossedMean | None:
    """The mean of the first set less that of the second one, of the same seeds on different prompts.

    None with fewer than two seeds, or prompts of either set."""
    first = crossed_mean(first_SN)
    second = crossed_mean(second_SM)
    if first is None or second is None or first.components is None or second.components is None:
        return None
    apart = [fmean(a) - fmean(b) for a, b in zip(first_SN, second_SM, strict=True)]
    seeds = len(apart)
    parts = (
        (variance(apart) / seeds, seeds - 1),
        (first.components.prompts / first.prompts, first.prompts - 1),
        (second.components.prompts / second.prompts, second.prompts - 1),
    )
    whole = sum(part for part, _ in parts)
    prompts = first.prompts + second.prompts
    if whole <= 1e-18:
        return CrossedMean(fmean(apart), None, 1.0, seeds, prompts, None)
    degrees = whole**2 / sum(part**2 / free for part, free in parts)
    return CrossedMean(fmean(apart), math.sqrt(whole), degrees, seeds, prompts, None)


def _trained(runs: Sequence[RunFigures]) -> list[float]:
    return [run.values["trained_gain"] for run in runs]


def _of_set(run: RunFigures, measure: str, begins: str) -> dict[str, float]:
    return {key: gain for key, gain in run.by_prompt.get(measure, {}).items() if key.startswith(begins)}


def _mean(run: RunFigures, measure: str, begins: str) -> float | None:
    gains = _of_set(run, measure, begins)
    return fmean(gains.values()) if gains else None


def _gains(runs: Sequence[RunFigures], measure: str, begins: str) -> list[list[float]]:
    """Seeds × prompts of a set that every run has a gain for."""
    of_runs = [gains for run in runs if (gains := _of_set(run, measure, begins))]
    common = sorted(set.intersection(*map(set, of_runs))) if of_runs else []
    return [[gains[prompt] for prompt in common] for gains in of_runs]


def transfer_sentences(figures: TransferFigures, margin: float) -> Iterator[str]:
    """What the gaps say, inconclusive included."""
    for gap in figures.gaps:
        name = f"{gap.name[:1].upper()}{gap.name[1:]}"
        if gap.gain is None:
            yield f"{name}: inconclusive, fewer than two runs have both."
            continue
        estimate = gap.gain.estimate
        if estimate.low is None or estimate.high is None:
            yield f"{name}: inconclusive, all differences are equal."
            continue
        found = f"{estimate.mean:+.2f} ({estimate.low:+.2f} to {estimate.high:+.2f}) points".replace("-", "−")
        verdict = "inconclusive"
        if -margin <= estimate.low and estimate.high <= margin:
            verdict = f"the gains are at most {margin:g} apart"
        elif estimate.low > 0 or estimate.high < 0:
            verdict = f"the first gains {'more' if estimate.low > 0 else 'less'}"
        yield f"{name}, gain: {found} over {gap.gain.seeds} seeds; {verdict}."
