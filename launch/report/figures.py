"""Numbers and steps as text, as the report's page and charts show them."""

import math
from collections.abc import Sequence

from dynalign.evaluation.statistics.estimates import Estimate

MINUS = "−"
"""A true minus sign, which is as wide as a plus sign."""
ABSENT = "–"
"""Shown for a value that was not measured."""


def figure(value: float) -> str:
    """Three significant digits, with separated thousands, and a power of ten only below 0.001."""
    size = abs(value)
    if size >= 100:
        words = f"{value:,.0f}"
    elif size >= 1e-3 or value == 0:
        words = f"{value:.3g}"
    else:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        words = f"{float(mantissa):g}e{int(exponent)}"
    return words.replace("-", MINUS)


def hundredths(value: float, sign: str = "") -> str:
    """Two decimals. sign: "+" to show the sign of a positive value too."""
    return f"{value:{sign}.2f}".replace("-", MINUS)


def with_interval(estimate: Estimate) -> str:
    """`1.59 (1.51 to 1.67, n 32)`; without an interval the mean alone.

    The mean has about three digits, the interval as many decimals.
    """
    if estimate.low is None or estimate.high is None:
        return figure(estimate.mean)
    size = max(abs(estimate.mean), estimate.high - estimate.low) or 1.0
    digits = min(6, max(0, 2 - math.floor(math.log10(size))))
    values = (estimate.mean, estimate.low, estimate.high)
    mean, low, high = (f"{value:.{digits}f}".replace("-", MINUS) for value in values)
    return f"{mean} ({low} to {high}, n {estimate.n})"


def step_label(column: Sequence[int]) -> str:
    """`step 12`, or `steps 12–14` for neighbours put together; step 0 is `before training`."""
    if len(column) > 1:
        return f"steps {column[0]:,}–{column[-1]:,}"
    return f"step {column[0]:,}" if column[0] else "before training"


def interval(estimate: Estimate | None, sign: str = "", with_n: bool = True) -> str:
    """`0.83 (0.71 to 0.91, n 16)`, or a dash. sign: "+" to show the sign of a positive figure."""
    if estimate is None:
        return ABSENT
    n = f"n {estimate.n}" if with_n else ""
    ends = ""
    if estimate.low is not None and estimate.high is not None:
        ends = f"{signed_hundredths(estimate.low, sign)} to {signed_hundredths(estimate.high, sign)}"
    behind = ", ".join(filter(None, (ends, n)))
    return signed_hundredths(estimate.mean, sign) + (f" ({behind})" if behind else "")


def signed_hundredths(value: float, sign: str) -> str:
    """As `hundredths`, without a sign before what rounds to nothing below it."""
    return hundredths(round(value, 2) + 0.0, sign)  # + 0.0: no minus sign before a zero
