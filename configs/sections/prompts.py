"""Section `prompts`: where the tasks come from."""

from pydantic import Field

from dynalign.configs.section import Positive, Section


class PromptsSettings(Section):
    """The prompts that a run trains on and evaluates.

    Example: `{source: tasks.jsonl, max_tokens: 1024}`.
    """

    source: str = "builtin"
    """`builtin` (shipped with dynalign), a .jsonl, .json, .csv, .tsv (or .gz of one), .parquet or .arrow
    file, a folder of such files, or `hub:owner/name:split` (a `datasets` id)."""
    column: str = Field(default="prompt", min_length=1)
    """Field or column of the prompts: texts, or lists of messages whose last user turn is taken."""
    earlier_turns: bool = False
    """Whether the messages before the last user turn stay, as text above it."""
    max_tokens: Positive = 512
    """Longest prompt accepted, in tokens of the model's tokenizer, system prompt and chat template
    included."""
