"""Section `convergence`: when to stop before the last step."""

from typing import Annotated

from pydantic import Field

from dynalign.configs.section import Section


class ConvergenceSettings(Section):
    """Stop when the held-out reward no longer rises.

    Example: `{window: 10, min_delta: 0.02}`.
    """

    window: Annotated[int, Field(ge=2, le=1000)] = 5
    """Evaluations looked back on."""
    min_delta: Annotated[float, Field(ge=0.0, le=5.0)] = 0.01
    """Smallest rise over the window that counts as one, in points of reward (0..5)."""
