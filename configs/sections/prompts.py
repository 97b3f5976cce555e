"""Section `prompts`: where the tasks come from."""

from dynalign.configs.section import Positive, Section


class PromptsSettings(Section):
    """Where the tasks come from."""

    source: str = "builtin"
    """`builtin` (shipped with dynalign), a .jsonl, .parquet or .arrow file, or `hub:<owner>/<name>` (a `datasets` id)."""
    max_tokens: Positive = 512
    """Longest prompt accepted, in tokens of the model's tokenizer, system prompt and template included."""
