"""The base class of every section of the settings, and the bounded number types that sections share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MOST = 1_000_000_000
"""The upper bound of counts that have no other: sums and products of them stay exact in every number type."""

Positive = Annotated[int, Field(ge=1, le=MOST)]
NotNegative = Annotated[int, Field(ge=0, le=MOST)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0, le=86_400.0)]


class Section(BaseModel):
    """Immutable, strict about types, without unknown keys. The docstring below a field is its help text."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, strict=True, protected_namespaces=()
    )
