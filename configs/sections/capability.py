"""Section `capability`: the probe of abilities that training should leave alone."""

from typing import Literal

from dynalign.configs.section import NotNegative, Positive, Section

LEAST_ITEMS = 30
"""With fewer items a standard error of paired differences means nothing."""
SHARE = 0.05
"""Tokens that answers beside the training groups may take, to the probe and of held-out prompts together, as
a share of the groups' completion tokens."""
LEAST_TOKENS = 16
"""No question with its chat template and its answer has fewer."""


class CapabilitySettings(Section):
    """Items with verifiable answers, asked of the policy during training without the system prompt, and
    compared with the answers of the initial policy. Workers answer them beside their groups, within 5 % of
    the tokens that they sample for training; with placement.mode=shared training waits for them.

    Example: `{items: 200, every_steps: 20}`.
    """

    items: NotNegative = 0
    """Items, drawn once for the whole run; 0: no probe. The suite `quick` has 240."""
    every_steps: Positive = 10
    """Steps from one point to the next. The answers of the point of step k are of versions k to
    k + every_steps, with placement.mode=shared of version k."""
    suite: Literal["quick", "paper", "safety"] = "quick"
    """Whose tasks the items are of, as in `dynalign evaluate`. The items of `quick` come with dynalign."""
    data: str | None = None
    """Folder with a file per task (TASK.jsonl, .json, .csv or .parquet), for the other suites."""
    max_tokens: Positive = 96
    """Most tokens of an answer, besides `thinking_tokens`; a task that asks for fewer keeps its own."""
    thinking_tokens: NotNegative = 0
    """Tokens that a model may think before an answer, of a model that does."""
