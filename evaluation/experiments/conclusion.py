"""What the numbers of an experiment say, in sentences composed from them; `inconclusive` included."""

from collections.abc import Iterator, Sequence

from dynalign.evaluation.experiments.arms import Arm, Design
from dynalign.evaluation.experiments.comparison import ArmDifference, ByArm, MeasureTable
from dynalign.evaluation.experiments.measures import Measure
from dynalign.evaluation.statistics.crossed import CrossedMean, seeds_needed, smallest_visible
from dynalign.evaluation.statistics.estimates import Estimate

MINUS = "−"
MOST_PROMPTS = 4096
"""A larger plan than this is not suggested."""


def conclusion(
    design: Design, runs: ByArm, primary: MeasureTable, margin: float, speed: MeasureTable | None
) -> list[str]:
    """The sentences, the most important one first. speed: all arms by `step_s`, where that is measured."""
    if not any(run.outcome.state == "finished" for of_arm in runs.values() for run in of_arm):
        return list(progress(runs))
    sentences = list(_chosen(design, primary, speed))
    sentences += [_arm_sentence(design, primary, difference, margin) for difference in primary.differences]
    return [*progress(runs), *sentences]


def progress(runs: ByArm) -> Iterator[str]:
    """How many runs have ended, where not all have finished; and a sentence for each that failed."""
    every = [run for of_arm in runs.values() for run in of_arm]
    finished = sum(run.outcome.state == "finished" for run in every)
    if finished < len(every):
        yield f"Preliminary: {finished} of {len(every)} runs have finished."
    for run in every:
        if run.outcome.state == "failed":
            yield f"Run {run.arm}-s{run.seed} failed after step {run.outcome.step}: {run.outcome.said}"


def _chosen(design: Design, primary: MeasureTable, speed: MeasureTable | None) -> Iterator[str]:
    if design.choose == "cheapest":
        for family in dict.fromkeys(arm.family for arm in design.arms if arm.family):
            yield _cheapest(design, primary, family)
    elif design.choose == "fastest":
        yield _fastest(design, primary, speed)
    else:
        yield _best(design, primary)


def _accepted(primary: MeasureTable, arm: Arm) -> bool:
    """Whether the arm is shown to be better than the baseline, or no worse."""
    found = primary.of(arm.name)
    return found is not None and found.verdict in ("better", "no worse")


def _cheapest(design: Design, primary: MeasureTable, family: str) -> str:
    baseline = design.arm(design.baseline)
    of_family = [arm for arm in design.arms if arm.family == family]
    cheaper = of_family[: _place(of_family, baseline)]
    for arm in cheaper:
        if _accepted(primary, arm):
            return (
                f"{_capital(family)}: {arm.title} is the cheapest arm that is no worse than {baseline.title}."
            )
    names = ", ".join(arm.title for arm in cheaper) or "no cheaper arm"
    return f"{_capital(family)}: none of {names} is shown to be no worse than {baseline.title}."


def _place(arms: Sequence[Arm], baseline: Arm) -> int:
    """How many arms of a family come before the baseline, which may stand in another family."""
    names = [arm.name for arm in arms]
    if baseline.name in names:
        return names.index(baseline.name)
    return sum(arm.rank < baseline.rank for arm in arms)


def _fastest(design: Design, primary: MeasureTable, speed: MeasureTable | None) -> str:
    baseline = design.arm(design.baseline)
    kept = [arm for arm in design.compared if _accepted(primary, arm)]
    times = {} if speed is None else speed.levels
    timed = [arm for arm in (baseline, *kept) if arm.name in times]
    if not kept:
        return f"No arm is shown to be no worse than {baseline.title} in {primary.measure.title}."
    if len(timed) < 2:
        names = ", ".join(arm.title for arm in kept)
        return f"No worse than {baseline.title} in {primary.measure.title}: {names}. No times were measured."
    fastest = min(timed, key=lambda arm: times[arm.name].mean)
    whole = f"{times[fastest.name].mean:.1f} s per step against {times[baseline.name].mean:.1f} s"
    if fastest is baseline:
        return f"No arm that is no worse than {baseline.title} has a shorter step."
    return f"{_capital(fastest.title)} is the fastest arm that is no worse than {baseline.title}: {whole}."


def _best(design: Design, primary: MeasureTable) -> str:
    baseline = design.arm(design.baseline)
    higher = [arm.title for arm in design.compared if _verdict(primary, arm) == "better"]
    lower = [arm.title for arm in design.compared if _verdict(primary, arm) == "worse"]
    if not design.compared:
        return f"{_capital(baseline.title)} is the only arm."
    if not higher and not lower:
        return f"No arm is shown to differ from {baseline.title} in {primary.measure.title}."
    parts = [f"better than {baseline.title}: {', '.join(higher)}"] if higher else []
    parts += [f"worse: {', '.join(lower)}"] if lower else []
    return f"{_capital('; '.join(parts))}."


def _verdict(primary: MeasureTable, arm: Arm) -> str:
    found = primary.of(arm.name)
    return "inconclusive" if found is None else found.verdict


def _arm_sentence(design: Design, table: MeasureTable, found: ArmDifference, margin: float) -> str:
    name = _capital(design.arm(found.arm).title)
    baseline = design.arm(design.baseline)
    if found.found is None:
        return f"{name} against {baseline.title}: inconclusive, {found.lacking}."
    tests = len(table.differences)
    measured = f"{signed(found.found.estimate)} {table.measure.unit}{_of(found.found)}"
    holm = f"p {_p(found.p)} after Holm over {tests} arm{'' if tests == 1 else 's'}"
    if found.verdict == "better":
        return f"{name} is better than {baseline.title}: {measured}, {holm}."
    if found.verdict == "worse":
        return f"{name} is worse than {baseline.title}: {measured}, {holm}."
    if found.verdict == "no worse":
        refuted = f"a loss of {margin:g} is refuted, p {_p(found.p_worse)} after Holm"
        return f"{name} is no worse than {baseline.title}: {measured}; {refuted}."
    if table.baseline_gain is not None and table.baseline_gain <= margin:
        return (
            f"{name} against {baseline.title}: inconclusive, {measured}, {holm}; {baseline.title} itself "
            f"has gained {_signed(table.baseline_gain, 2)}, so that a loss of {margin:g} could not be seen: "
            "train longer."
        )
    return (
        f"{name} against {baseline.title}: inconclusive, {measured}, {holm}"
        f"{larger_plan(found.found, table.measure, margin, tests)}."
    )


def lift_sentences(design: Design, lifts: MeasureTable) -> Iterator[str]:
    """How far a planted bias raises each arm's scores, where that is measured. lifts: by `bias_lift`."""
    level = lifts.levels.get(design.baseline)
    if level is None:
        return
    baseline = design.arm(design.baseline).title
    yield f"Lift by planted bias, {baseline}: {signed(level)} {lifts.measure.unit}."
    words = {"better": "less", "worse": "more"}
    for each in lifts.differences:
        pair = f"Lift by planted bias, {design.arm(each.arm).title} against {baseline}"
        if each.found is None:
            yield f"{pair}: {each.lacking}."
            continue
        said = words.get(each.verdict, "inconclusive")
        measured = f"{signed(each.found.estimate)} {lifts.measure.unit}{_of(each.found)}"
        yield f"{pair}: {said}, {measured}, p {_p(each.p)} after Holm."


def larger_plan(found: CrossedMean, measure: Measure, margin: float, tests: int) -> str:
    """What would have to be run to see a difference of the margin, by the variances that were found."""
    if found.error is None:
        return "; all differences are equal, so that nothing can be said of other seeds"
    if found.components is None:
        return ""
    wanted = f"; a difference of {margin:g} {measure.unit} would be seen (80 % power) with"
    prompts = found.prompts
    while prompts <= MOST_PROMPTS:
        seeds = seeds_needed(found.components, prompts, tests, margin)
        if seeds is not None and (seeds <= 4 * found.seeds or 2 * prompts > MOST_PROMPTS or _no_use(found)):
            size = f"{max(seeds, found.seeds)} seeds on {prompts} prompts"
            return f"{wanted} {size}, as far as these variances hold"
        prompts *= 2
    now = smallest_visible(found.components, found.seeds, found.prompts, tests)
    return f"; this plan sees {now:.2f}, and no plan of {MOST_PROMPTS} prompts would see {margin:g}"


def _no_use(found: CrossedMean) -> bool:
    """Whether more prompts would not help, because the seeds differ."""
    parts = found.components
    assert parts is not None
    return parts.seeds * found.prompts > parts.prompts * found.seeds + parts.rest


def signed(estimate: Estimate, digits: int = 2) -> str:
    """`+0.21 (−0.04 to +0.46)`."""
    mean = _signed(estimate.mean, digits)
    if estimate.low is None or estimate.high is None:
        return f"{mean} (no interval)"
    return f"{mean} ({_signed(estimate.low, digits)} to {_signed(estimate.high, digits)})"


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", MINUS)


def _of(found: CrossedMean) -> str:
    prompts = f", {found.prompts} prompts" if found.prompts else ""
    return f" over {found.seeds} seeds{prompts}"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if value >= 0.001 else "below 0.001"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
