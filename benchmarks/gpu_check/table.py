"""The outcomes as aligned lines: stage, status, seconds, then a line per figure, and the cause."""

from collections.abc import Iterator, Sequence

from dynalign.benchmarks.gpu_check.outcomes import Measured, Origin, StageOutcome

_STAGE = 18
_STATUS = 10
_SECONDS = 9
_FIGURE = 40


def table_lines(outcomes: Sequence[StageOutcome], origin: Origin) -> Iterator[str]:
    """The lines that the command prints at the end."""
    yield f"{origin.card}, commit {origin.commit or 'unknown'}, sources {origin.sources}"
    if origin.device == "cpu":
        yield "dry run on a CPU with tiny shapes: these figures say only that the check works"
    yield f"{'stage':<{_STAGE}}{'status':<{_STATUS}}{'seconds':>{_SECONDS}}"
    for outcome in outcomes:
        row = f"{outcome.stage:<{_STAGE}}{outcome.status:<{_STATUS}}{outcome.seconds:>{_SECONDS},.0f}"
        yield f"{row}  {outcome.cause}".rstrip()
        yield from (f"  {name:<{_FIGURE}}{readable(value)}" for name, value in outcome.figures.items())


def readable(value: Measured) -> str:
    """Four significant digits; a whole number and a text as they are."""
    if isinstance(value, str):
        return value
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    )
