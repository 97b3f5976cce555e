"""Section `heldout`: the evaluation on held-out prompts."""

from dynalign.configs.section import NotNegative, Positive, Section


class HeldoutSettings(Section):
    """Evaluation on held-out prompts with fixed seeds, by the live judge."""

    prompts: NotNegative = 32
    """Held-out prompts per evaluation; 0 switches it off."""
    every_steps: Positive = 5
    """Steps between evaluations; the first one is before step 1, the last after the last step."""
    prompted: bool = True
    """Also evaluate with the system prompt (what the overfitting alarm compares training with)."""
