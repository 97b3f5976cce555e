"""A learner without its actor: one DeepSpeed rank in this process."""

import os
from pathlib import Path

from dynalign.benchmarks.workload import Workload
from dynalign.learner.learner import Learner


def start_learner(workload: Workload, *overrides: str, model_folder: Path | None = None) -> Learner:
    """Rank 0 of 1. The environment is that of `dynalign.actors.learner.learner_rank`. model_folder: None for
    the workload's model."""
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    if workload.device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    return Learner(workload.settings(*overrides), model_folder or workload.model_folder, 0, 1)
