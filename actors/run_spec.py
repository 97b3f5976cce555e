"""What every actor of a run is given at its start."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dynalign.configs.schema import RunSettings

NAMESPACE = "dynalign"
"""Ray namespace of the actors of all runs, so that any shell finds them by name."""


def gateway_name(run: RunSettings) -> str:
    """Ray name of the gateway to the endpoints."""
    return f"{run.name}-gateway"


@dataclass(frozen=True)
class RunSpec:
    """Which run it is, and where: RunSpec(run, "runs/quickstart", lineage=3, step=10,
    prompts_hash="9f2c…")."""

    run: RunSettings
    """The settings of the run."""
    run_folder: str
    """Path of the run folder, the same on every node."""
    lineage: int
    """The lineage that the actors serve."""
    step: int
    """Step of the whole checkpoint that the lineage began with; 0 for none."""
    prompts_hash: str
    """Hash of the prompt set."""
    content: Mapping[str, str] = field(default_factory=dict)
    """The hashes of `run_folder/content.py` at the start of the lineage."""

    @property
    def ledger(self) -> str:
        """Ray name of the ledger."""
        return f"{self.run.name}-ledger"

    @property
    def gateway(self) -> str:
        """Ray name of the gateway to the endpoints."""
        return gateway_name(self.run)
