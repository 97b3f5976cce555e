"""Where and what a run is, as its actors are told once."""

from dataclasses import dataclass

from configs.schema import RunSettings


@dataclass(frozen=True)
class RunPlace:
    """`step`: the step to continue from (0: a new run). `run_folder` is reached by every node. `prompts_hash` names the prompt set."""

    run: RunSettings
    run_folder: str
    lineage: int
    step: int
    prompts_hash: str
