"""What `dynalign prompts refresh` shows before anything is asked."""

from collections.abc import Iterator, Sequence

from dynalign.dataset.items import AXES
from dynalign.dataset.making_plan import MakingPlan
from dynalign.dataset.refresh_choice import RefreshChoice, ValueEffect
from dynalign.launch.refresh_record import RunRecord

_SHOWN_VALUES = 3
"""Of an axis, at either end."""
_SHOWN_PROMPTS = 8


def told_choice(run: str, record: RunRecord, choice: RefreshChoice) -> Iterator[str]:
    """What the record says: where groups separate, and which prompts are saturated."""
    drawn = len(record.prompts.train) - len(record.dropped)
    last = max(outcome.step for outcome in record.outcomes)
    groups = sum(outcome.step >= choice.first_step for outcome in record.outcomes)
    yield (
        f"run {run}, steps {choice.first_step} to {last}: {groups:,} groups of {choice.prompts:,} prompts of "
        f"{drawn:,}; {choice.without_signal:.0%} without signal, usefulness {choice.usefulness:.2f}"
    )
    if record.tokens_per_group is not None:
        wasted = choice.without_signal * groups * record.tokens_per_group
        yield f"about {wasted:,.0f} completion tokens of these went into groups without signal"
    axes = list(dict.fromkeys(each.axis for each in choice.effects))
    if not set(axes) & set(AXES):
        yield "the cells of its prompts are not known: the set counts as one cell, and every cell as useful"
    for axis in axes:
        yield from _told_axis(axis, [each for each in choice.effects if each.axis == axis])
    names = [record.prompts.train[position].id for position in choice.saturated]
    shown = ", ".join(names[:_SHOWN_PROMPTS]) + (", …" if len(names) > _SHOWN_PROMPTS else "")
    yield f"saturated: {len(names):,} of {drawn:,} prompts" + (f" ({shown})" if names else "")


def _told_axis(axis: str, effects: Sequence[ValueEffect]) -> Iterator[str]:
    if not any(each.effect for each in effects):
        yield f"{axis}: its {len(effects)} values differ by no more than chance"
        return
    ranked = sorted(effects, key=lambda each: (-each.effect, each.value))
    left_out = len(ranked) - 2 * _SHOWN_VALUES
    shown = ranked if left_out <= 0 else [*ranked[:_SHOWN_VALUES], *ranked[-_SHOWN_VALUES:]]
    yield f"{axis}:" + (f" ({left_out} values between are not shown)" if left_out > 0 else "")
    for each in shown:
        figures = f"usefulness {each.usefulness:.2f} ± {each.standard_error:.2f} of {each.prompts:,} prompts"
        yield f"  {each.effect:+.2f}  {each.value}: {figures}"


def told_cost(plan: MakingPlan) -> Iterator[str]:
    """How much is asked. A prompt takes three questions if the first draft is accepted; each round adds a
    refinement and a critic, and a place is asked for again with all of them."""
    settings = plan.settings
    most = settings.attempts * settings.tries * (3 + 2 * settings.rounds)
    counted = f"{settings.count:,} prompts in {len(set(plan.cells)):,} useful cells"
    yield f"new: {counted}, from {3 * settings.count:,} to {most * settings.count:,} questions"
