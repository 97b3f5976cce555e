"""Section `prompts`: where the tasks come from."""

from dynalign.configs.section import Positive, Section


class PromptsSettings(Section):
    """The prompts that a run trains on and evaluates.

    Example: `{source: tasks.jsonl, max_tokens: 1024}`.
    """

    source: str = "builtin"
    """`builtin` (shipped with dynalign), a .jsonl, .parquet or .arrow file, or `hub:owner/name` (a
    `datasets` id)."""
    max_tokens: Positive = 512
    """Longest prompt accepted, in tokens of the model's tokenizer, system prompt and chat template
    included."""
