"""Section `heldout`: the evaluation on held-out prompts."""

from dynalign.configs.section import NotNegative, Positive, Section


class HeldoutSettings(Section):
    """Evaluation on held-out prompts with fixed seeds, scored by the judge of the run.

    Example: `{prompts: 48, every_steps: 10, prompted: true, waits: false}`.
    """

    prompts: NotNegative = 32
    """Held-out prompts per evaluation; 0: no evaluation."""
    every_steps: Positive = 5
    """Steps between evaluations; the first one is before step 1, the last one after the last step."""
    prompted: bool = True
    """Also evaluate with the system prompt. The overfitting alarm compares these rewards with those of
    training."""
    waits: bool = True
    """Training waits for each evaluation, whose answers are all of one version, the same however fast the
    machines are. false: only for the first and the last one. Workers then answer the others beside their
    groups, within 5 % of the tokens that they sample for training, and a figure is of several versions."""
