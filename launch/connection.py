"""A Ray cluster for a run: the one that RAY_ADDRESS names, or one of its own in this machine."""

import os

import ray

from configs.schema import RunSettings

NAMESPACE = "dynalign"
"""Ray's namespace of every run's actors, so that any shell finds them by name."""


def connect(run: RunSettings) -> bool:
    """Joins the cluster that RAY_ADDRESS names (a Ray job sets it), else starts one in this machine. True if it was started."""
    quiet = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(address="auto", **quiet)
        return False
    needed = run.rollout.workers.max * run.rollout.engine_threads + run.learner.ranks * run.learner.threads
    ray.init(
        num_cpus=max(needed, os.cpu_count() or 1),
        object_store_memory=int(run.placement.object_store_gib * 2**30),
        include_dashboard=False,
        **quiet,
    )
    return True
