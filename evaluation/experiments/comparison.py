"""Each arm against the baseline: differences with intervals, Holm's correction, and a verdict of four."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dynalign.evaluation.experiments.arms import Design
from dynalign.evaluation.experiments.measures import MEASURES, Measure
from dynalign.evaluation.experiments.run_figures import ByPrompt, RunFigures
from dynalign.evaluation.statistics.crossed import LEVEL, CrossedMean, crossed_mean, seeds_mean
from dynalign.evaluation.statistics.estimates import Estimate, mean_interval
from dynalign.evaluation.statistics.noninferiority import holm

ArmVerdict = Literal["better", "worse", "no worse", "inconclusive"]
ByArm = Mapping[str, Sequence[RunFigures]]
"""Arm → its runs."""


@dataclass(frozen=True)
class ArmDifference:
    """An arm less the baseline, by one measure.

    Example: `ArmDifference("g4", "heldout", CrossedMean(…), 0.21, 0.21, 0.004, "no worse", "")`.
    """

    arm: str
    """The arm's name."""
    measure: str
    """The measure's name."""
    found: CrossedMean | None
    """The difference; None where both arms have too few runs in common."""
    p: float | None
    """Holm-adjusted, of the hypothesis that the arms do not differ; None without a difference."""
    p_worse: float | None
    """Holm-adjusted, of the hypothesis that the arm loses the margin or more; None where no margin is
    declared."""
    verdict: ArmVerdict
    """`better`, `worse`: the arms differ, at 5 % after Holm. `no worse`: a loss of the margin is refuted, by
    the same rule, and the baseline has gained more than that. `inconclusive`: none of these is shown."""
    lacking: str
    """Why there is no difference, in words; empty where there is one."""


@dataclass(frozen=True)
class MeasureTable:
    """All arms by one measure: `MeasureTable(measure, {"g4": Estimate(…)}, (ArmDifference(…),))`."""

    measure: Measure
    """What was measured."""
    levels: Mapping[str, Estimate]
    """Arm → mean over its runs, with an interval over seeds; arms without a value are left out."""
    differences: tuple[ArmDifference, ...]
    """Of all arms but the baseline."""
    baseline_gain: float | None = None
    """What the baseline has gained over its initial policy, by this measure; None where that is not known."""

    def of(self, arm: str) -> ArmDifference | None:
        """The difference of an arm; None for the baseline."""
        return next((each for each in self.differences if each.arm == arm), None)


def measure_table(design: Design, runs: ByArm, name: str, margin: float | None) -> MeasureTable:
    """All arms by one measure. margin: the loss that is still called none; None where none is declared."""
    measure = MEASURES[name]
    levels = {}
    for arm in design.arms:
        level = mean_interval([value for run in runs[arm.name] for value in run_level(run, measure)])
        if level is not None:
            levels[arm.name] = level
    found = {arm.name: difference(runs[arm.name], runs[design.baseline], measure) for arm in design.compared}
    gain = _gain(runs[design.baseline], name)
    return MeasureTable(measure, levels, _verdicts(found, measure, margin, gain), gain)


def _gain(baseline: Sequence[RunFigures], name: str) -> float | None:
    """The mean over runs of what they have gained, where a measure of gains belongs to the measure."""
    gains = MEASURES.get(f"{name}_gain")
    found = [value for run in baseline for value in run_level(run, gains)] if gains is not None else []
    return sum(found) / len(found) if found else None


def run_level(run: RunFigures, measure: Measure) -> list[float]:
    """The one value of a run; [] where it has none."""
    if not measure.by_prompt:
        return [run.values[measure.name]] if measure.name in run.values else []
    points = run.by_prompt.get(measure.name, {})
    return [sum(points.values()) / len(points)] if points else []


def difference(
    arm: Sequence[RunFigures], baseline: Sequence[RunFigures], measure: Measure
) -> CrossedMean | str:
    """The arm less the baseline over the seeds, and prompts, that both have; in words what is lacking."""
    usable = [[run for run in runs if run_level(run, measure)] for runs in (arm, baseline)]
    if not all(usable):
        return "not measured" if any(usable) or _ended(arm, baseline) else "no run has ended yet"
    of_arm = {run.seed: run for run in usable[0]}
    of_baseline = {run.seed: run for run in usable[1]}
    seeds = sorted(of_arm.keys() & of_baseline.keys())
    if len(seeds) < 2:
        return f"{len(seeds)} seed{'' if len(seeds) == 1 else 's'} in common, two are needed"
    if not measure.by_prompt:
        name = measure.name
        return (
            seeds_mean([of_arm[seed].values[name] - of_baseline[seed].values[name] for seed in seeds]) or ""
        )
    pairs = [
        (of_arm[seed].by_prompt[measure.name], of_baseline[seed].by_prompt[measure.name]) for seed in seeds
    ]
    prompts = _common(pairs)
    if len(prompts) < 2:
        return f"{len(prompts)} prompts with a readable score in every run, two are needed"
    return crossed_mean([[a[prompt] - b[prompt] for prompt in prompts] for a, b in pairs]) or ""


def _ended(*arms: Sequence[RunFigures]) -> bool:
    return all(any(run.outcome.state in ("finished", "failed") for run in runs) for runs in arms)


def _common(pairs: Sequence[tuple[ByPrompt, ByPrompt]]) -> list[str]:
    """The prompts that every run has a score for."""
    return sorted(set.intersection(*(set(points) for pair in pairs for points in pair)))


def _verdicts(
    found: Mapping[str, CrossedMean | str], measure: Measure, margin: float | None, gain: float | None
) -> tuple[ArmDifference, ...]:
    # An arm that has learned nothing loses no more than the baseline has gained: where that is no more than
    # the margin, a loss cannot be seen, and refuting it shows nothing (assay sensitivity, ICH E10, 1.5).
    blind = margin is not None and gain is not None and gain <= margin
    there = {name: each for name, each in found.items() if isinstance(each, CrossedMean)}
    sign = -1.0 if measure.better == "lower" else 1.0
    p_different = dict(zip(there, holm([each.p_different() for each in there.values()]), strict=True))
    p_loss: dict[str, float] = {}
    if margin is not None:
        p_loss = dict(zip(there, holm([_p_loss(each, sign, margin) for each in there.values()]), strict=True))
    differences = []
    for name, each in found.items():
        if isinstance(each, str):
            differences.append(
                ArmDifference(name, measure.name, None, None, None, "inconclusive", each or "not measured")
            )
            continue
        verdict = _verdict(each.mean * sign, p_different[name], None if blind else p_loss.get(name))
        differences.append(
            ArmDifference(name, measure.name, each, p_different[name], p_loss.get(name), verdict, "")
        )
    return tuple(differences)


def _p_loss(found: CrossedMean, sign: float, margin: float) -> float:
    """Of the hypothesis that the arm loses the margin or more."""
    turned = CrossedMean(sign * found.mean, found.error, found.degrees, found.seeds, found.prompts, None)
    return turned.p_not_above(-margin)


def _verdict(gain: float, p: float, p_worse: float | None) -> ArmVerdict:
    if p <= LEVEL and gain > 0:
        return "better"
    if p_worse is not None and p_worse <= LEVEL:
        return "no worse"
    return "worse" if p <= LEVEL else "inconclusive"
