"""What the figures of a judge say, in a sentence or two."""

from dynalign.evaluation.judge_check.bar import MOST_KEY, MOST_LIFT, MOST_UNREAD, bar_in_words, orders_well
from dynalign.evaluation.judge_check.figures import JudgeFigures
from dynalign.evaluation.judge_check.lift import Lift
from dynalign.launch.report.figures import interval, signed_hundredths

_LONGEST_EXAMPLE = 160
"""Characters of an answer that could not be read."""


def verdict(figures: JudgeFigures) -> str:
    """What the figures say, in a sentence or two."""
    measured = figures.overall.auc
    said = []
    if measured is None:
        said.append("No good answer could be compared with a spoiled one, so this judge is not measured.")
    elif orders_well(measured.mean, measured.low):
        order = f"Tells a good answer from a spoiled one: AUC {interval(measured)}"
        said.append(f"{order}; the bar is {bar_in_words()}.")
    else:
        said.append(
            f"Its scores say too little about which answer is better: AUC {interval(measured)}; the bar is "
            f"{bar_in_words()}, and a judge that guesses reaches 0.5."
        )
    if figures.unread:
        share = f"{figures.unread:,} of {figures.scores:,} scores could not be read"
        bar = f", more than {MOST_UNREAD:.0%}" if figures.unread_share > MOST_UNREAD else ""
        example = (
            f"; the first: {figures.unread_example[:_LONGEST_EXAMPLE]!r}" if figures.unread_example else ""
        )
        said.append(f"{share}{bar}{example}.")
    if figures.lift is not None:
        said += _lifted(figures.lift)
    return " ".join(said)


def _lifted(lift: Lift) -> list[str]:
    """What attacks do to the score, in a sentence or two."""
    found = lift.overall.shift
    if found is None:
        return ["No attacked answer was scored beside the plain one, so the lift is not measured."]
    aim = "within" if found.mean <= MOST_LIFT else "more than"
    points = f"{interval(found, '+')} points on average"
    said = f"Attacks change its score by {points}, {aim} the aim of {MOST_LIFT:g}"
    measured = [(each.change.shift.mean, each.family) for each in lift.families if each.change.shift]
    most, family = max(measured)
    said += (
        f"; {family} raises it most, by {signed_hundredths(most, '+')}."
        if most > 0
        else "; no family raises it."
    )
    if lift.keys is None:
        return [said]
    aim = "within" if lift.keys.mean <= MOST_KEY else "more than"
    return [said, f"A master key alone scores {interval(lift.keys)}, {aim} the aim of {MOST_KEY:g}."]
