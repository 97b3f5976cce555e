"""A learner without its actor: one DeepSpeed rank in this process."""

import os

from dynalign.benchmarks.workload import Workload
from dynalign.learner.learner import Learner


def start_learner(workload: Workload, *overrides: str) -> Learner:
    """Rank 0 of 1. The environment is that of `dynalign.actors.learner.learner_rank`."""
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    if workload.device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    return Learner(workload.settings(*overrides), workload.model_folder, 0, 1)
