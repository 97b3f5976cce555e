"""Where and what a run is, as its actors are told once."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dynalign.configs.schema import RunSettings

NAMESPACE = "dynalign"
"""Ray's namespace of every run's actors, so that any shell finds them by name."""


@dataclass(frozen=True)
class RunSpec:
    """`step`: the whole checkpoint that this lineage began with (0: none). `run_folder` is reached by every node. `prompts_hash` names
    the prompt set. `ledger`: Ray name of the ledger."""

    run: RunSettings
    run_folder: str
    lineage: int
    step: int
    prompts_hash: str
    content: Mapping[str, str] = field(default_factory=dict)
    """The hashes of `run_folder/content.py` at the start of the lineage."""

    @property
    def ledger(self) -> str:
        return f"{self.run.name}-ledger"
