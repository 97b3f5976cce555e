"""How samples become figures and ratios, and the JSON form in which they are written (`--json`) and kept
(`benchmarks/results/`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dynalign.benchmarks.catalog import FIGURES, NOT_MEASURED, RATIOS

FORMAT: Literal[1] = 1
LEFT_OUT = "left out by --only"

Samples = Mapping[str, Sequence[float]]
"""Figure → what each run measured."""
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Figure(_Closed):
    """Median and extremes of `n` runs."""

    what: str
    unit: str
    median: Finite
    min: Finite
    max: Finite
    n: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min <= self.median <= self.max:
            raise ValueError(f"min {self.min}, median {self.median}, max {self.max} are not in order")
        return self


class Host(_Closed):
    """The machine and the software that were measured."""

    cpu: str
    cores: Annotated[int, Field(ge=1)]
    memory_gib: float
    gpus: list[str]
    system: str
    python: str
    packages: dict[str, str]
    commit: str | None
    """A "+" marks changes that are not committed; None outside of a checkout."""
    load_average: float
    """Runnable processes in the minute before; 0 on a quiet machine."""


class Result(_Closed):
    """One run of the benchmark."""

    format: Literal[1]
    made: str
    quick: bool
    """A small trial, whose figures say only that the benchmark works."""
    settings: list[str] = []
    """Overrides of the shipped run, as `key=value`."""
    host: Host
    figures: dict[str, Figure]
    ratios: dict[str, Finite | None]
    """None where the ratio was not measured."""
    reasons: dict[str, str]
    """Why a ratio is None, by its name."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.ratios) != list(RATIOS):
            raise ValueError(f"ratios are {list(self.ratios)}, not {list(RATIOS)}")
        unmeasured = {key for key, value in self.ratios.items() if value is None}
        if unmeasured != set(self.reasons) or not all(self.reasons.values()):
            raise ValueError(
                f"reasons are given for {sorted(self.reasons)}, and null are {sorted(unmeasured)}"
            )
        for key, value in self.ratios.items():
            if value is not None and not math.isclose(value, quotient(key, self.figures), rel_tol=1e-6):
                raise ValueError(f"{key} is {value}, and its figures give {quotient(key, self.figures)}")
        return self


def figures_of(samples: Samples) -> dict[str, Figure]:
    """The figures in the catalog's order. Raises KeyError for a name that is not in it."""
    return {
        name: Figure(
            what=kind.what,
            unit=kind.unit,
            median=median(samples[name]),
            min=min(samples[name]),
            max=max(samples[name]),
            n=len(samples[name]),
        )
        for name, kind in FIGURES.items()
        if name in samples
    }


def quotient(key: str, figures: Mapping[str, Figure]) -> float:
    """The ratio of the two medians, or the one median."""
    ratio = RATIOS[key]
    return figures[ratio.over].median / (figures[ratio.under].median if ratio.under else 1.0)


def ratios_of(
    figures: Mapping[str, Figure], chosen: Iterable[str], failures: Mapping[str, str]
) -> tuple[dict[str, float | None], dict[str, str]]:
    """(ratios, reasons). failures: job → why it measured nothing."""
    chosen = set(chosen)
    ratios: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for key, ratio in RATIOS.items():
        reason = None
        if ratio.job is None:
            reason = NOT_MEASURED
        elif key not in chosen:
            reason = LEFT_OUT
        elif ratio.job in failures:
            reason = failures[ratio.job]
        ratios[key] = quotient(key, figures) if reason is None else None
        if reason is not None:
            reasons[key] = reason
    return ratios, reasons
