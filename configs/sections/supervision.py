"""Section `supervision`: how often an actor that died is replaced."""

from typing import Annotated

from pydantic import Field

from dynalign.configs.section import NotNegative, Seconds, Section


class SupervisionSettings(Section):
    """How many deaths a run tolerates before it ends with their cause.

    Example: `{restarts: 5, window_s: 3600.0, poison_attempts: 3}`.
    """

    restarts: NotNegative = 5
    """Replacements of one worker, or restarts of the learner, the ledger or the coordinator, each within
    `window_s`; one more ends the run."""
    window_s: Seconds = 3600.0
    """Deaths of the last `window_s` seconds count against `restarts`."""
    poison_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Workers that one prompt may break. After that the prompt is withheld, and written to `poison.jsonl`."""
