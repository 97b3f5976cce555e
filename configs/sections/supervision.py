"""Section `supervision`: how often an actor that died is replaced."""

from typing import Annotated

from pydantic import Field

from dynalign.configs.section import NotNegative, Seconds, Section


class SupervisionSettings(Section):
    """What is replaced when it dies, and how often before the run ends with the cause."""

    restarts: NotNegative = 5
    """Replacements of one worker, or restarts of the learner, of the ledger, or of the coordinator, each within `window_s`; one more
    ends the run."""
    window_s: Seconds = 3600.0
    """What is counted against `restarts`: deaths not longer ago than this."""
    poison_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Workers that a prompt may break; then it is withheld, and written to `poison.jsonl` for inspection."""
